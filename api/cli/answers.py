"""One call of the service, and what is shown of its answer: the JSON as it came, or what a person reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from api.cli.invocation import connect
from api.cli.output import print_json

if TYPE_CHECKING:
    import typer

    from memgen_client import JsonClient


def print_answer(
    context: typer.Context, as_json: bool, call: Callable[[JsonClient], Any], print_for_people: Callable[[Any], None]
) -> None:
    """Make a call, and print its answer in one of two ways; a list is JSON as `{"data": [...]}`."""
    with connect(context) as client:
        answer = call(client)
    if as_json:
        print_json({"data": answer} if isinstance(answer, list) else answer)
    else:
        print_for_people(answer)
