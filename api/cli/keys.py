"""`memgen keys`: API keys of this project."""

from typing import Annotated

import typer

from api.cli.answers import print_answer
from api.cli.output import JsonOption, moment, print_line, print_note, print_table
from api.http.json_object import JsonObject

app = typer.Typer(help="API keys of this project.", no_args_is_help=True)


@app.command(epilog="Example: `memgen keys create agent --scope read --scope write`")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Who will use it, for people.", show_default=False)],
    scope: Annotated[
        list[str], typer.Option(help="read, write, train, promote or admin; repeatable.", show_default=False)
    ],
    as_json: JsonOption = False,
) -> None:
    """Create a key. It is shown this once: only its hash is stored."""
    print_answer(context, as_json, lambda client: client.keys.create(name, scope), lambda key: _print_create(key, name))


def _print_create(key: JsonObject, name: str) -> None:
    print_note(f"Key {name} ({', '.join(key['scopes'])}), id {key['id']}. Keep it now, it is not shown again:")
    print_line(key["key"])


@app.command("list", epilog="Example: `memgen keys list`")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List keys by their first characters; the keys themselves are not stored."""
    print_answer(context, as_json, lambda client: client.keys.list(), _print_list)


def _print_list(keys: list[JsonObject]) -> None:
    rows = [
        (
            k["id"],
            k["name"],
            f"{k['hint']}...",
            ", ".join(k["scopes"]),
            moment(k["created_at"]),
            moment(k["revoked_at"]),
        )
        for k in keys
    ]
    print_table(("id", "name", "key", "scopes", "created", "revoked"), rows)


@app.command(epilog="Example: `memgen keys revoke 6f0c2a52-4c3e-4a0e-9f0e-0d8b8f6f7f11`")
def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(help="Id of the key, see `memgen keys list`.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Revoke a key; from now on it is refused."""
    print_answer(
        context,
        as_json,
        lambda client: client.keys.revoke(key_id),
        lambda key: print_line(f"Key {key['name']} ({key['hint']}...) is revoked."),
    )
