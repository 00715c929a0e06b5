"""`memgen upstreams`: other endpoints whose models the service serves, as `upstream/model`."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.answers import print_answer
from api.cli.invocation import connect
from api.cli.output import JsonOption, print_json, print_table
from api.http.json_object import JsonObject

app = typer.Typer(help="Other endpoints whose models are served here, as `upstream/model`.", no_args_is_help=True)

_NONE = "None: MEMGEN_UPSTREAMS names no file of them, or none is for this project."


@app.command("list", epilog="Example: `memgen upstreams list`")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the upstreams that this project may use, and what may be requested of them."""
    print_answer(context, as_json, lambda client: client.upstreams.list(), _print_list)


def _print_list(found: list[JsonObject]) -> None:
    rows = [
        (
            each["name"],
            ", ".join(f"{each['name']}/{model}" for model in each["models"]),
            "yes" if each["has_key"] else "no",
            f"{each['requests']} of {each['max_concurrent']}",
        )
        for each in found
    ]
    print_table(("upstream", "models", "key", "requests"), rows, empty=_NONE)


@app.command(epilog="Example: `memgen upstreams check strong`")
def check(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="One of them. Default: all.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask upstreams for their models, with their keys, from where the API runs. Ends with 1 if one can't be used."""
    with connect(context) as client:
        names = [name] if name is not None else [each["name"] for each in client.upstreams.list()]
        found = [client.upstreams.check(each) for each in names]
    if as_json:
        print_json({"data": found})
    else:
        rows = [
            (each["name"], "ready" if each["ok"] else "failed", each["detail"], f"{each['seconds']:.2f} s")
            for each in found
        ]
        print_table(("upstream", "state", "detail", "time"), rows, empty=_NONE)
    if not all(each["ok"] for each in found):
        raise typer.Exit(1)
