"""Arguments that several commands share, and the reading of `key=value` and of `ADAPTER@VERSION`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.completion import adapter_names
from api.cli.invocation import CommandFailed

if TYPE_CHECKING:
    from memgen_client import JsonClient

AdapterArgument = Annotated[
    str, typer.Argument(help="Name of the adapter.", show_default=False, autocompletion=adapter_names)
]
VersionArgument = Annotated[int, typer.Argument(min=1, help="Number of the version.", show_default=False)]
AliasOption = Annotated[str, typer.Option(help="The alias to move or to look at.")]
ExpectedOption = Annotated[
    int | None,
    typer.Option(min=0, help="The version you believe is current, 0 for none; refused if it is not."),
]
ReasonOption = Annotated[str, typer.Option(help="Why, for the history.")]
ApplyOption = Annotated[bool, typer.Option("--apply", help="Do it. Without, only say what would be done.")]
AtOption = Annotated[
    str | None,
    typer.Option(help="A time such as '2026-11-17 03:00', of this machine's zone unless it names another."),
]


def read_moment(text: str | None, option: str) -> str | None:
    """`2026-11-17 03:00` as ISO 8601 with its zone.

    Raises:
        typer.BadParameter: it is no time.
    """
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a time such as '2026-11-17 03:00'", param_hint=option) from error


def read_pairs(pairs: Sequence[str], option: str) -> dict[str, Any]:
    """`["steps=5", "name=x"]` as `{"steps": 5, "name": "x"}`: a value is JSON where it can be, else text.

    Raises:
        typer.BadParameter: not of the form `key=value`, or a key twice.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{pair!r} is not of the form key=value", param_hint=option)
        if key in values:
            raise typer.BadParameter(f"{key!r} is given twice", param_hint=option)
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
    return values


def find_version(client: JsonClient, name: str) -> tuple[str, int]:
    """Adapter and number of `support-bot@7` or `support-bot@champion`.

    Raises:
        typer.BadParameter: it is not of that form.
        CommandFailed: there is no such alias.
    """
    adapter, at, which = name.partition("@")
    if not at or not which:
        raise typer.BadParameter(f"{name!r} is not of the form ADAPTER@VERSION", param_hint="VERSION")
    if which.isdecimal():
        return adapter, int(which)
    aliases = client.adapters.get(adapter)["aliases"]
    if which not in aliases:
        known = ", ".join(aliases) or "none"
        raise CommandFailed(f"{adapter} has no alias {which!r}; there are: {known}. Or name a number.")
    return adapter, int(aliases[which])
