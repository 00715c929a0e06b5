"""`memgen feedback`: report what an answer, a run or a session was worth, or list and search what was reported."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer

from api.cli.invocation import connect
from api.cli.output import JsonOption, first_line, moment, print_json, print_line, print_note, print_table
from api.http.json_object import JsonObject
from registry.wording import counted


class OfOption(str, Enum):  # noqa: UP042 - typer reads the values of a plain enum
    completion = "completion"
    run = "run"
    session = "session"
    trajectory = "trajectory"


def feedback(
    context: typer.Context,
    identifier: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="`id` of an answer, or of what --of says.", show_default=False),
    ] = None,
    reward: Annotated[
        float | None,
        typer.Argument(min=0, max=1, help="0 is bad, 1 is good. Without one, feedback is listed.", show_default=False),
    ] = None,
    of: Annotated[OfOption, typer.Option(help="What ID names. A run or a session is closed.")] = OfOption.completion,
    source: Annotated[
        str | None,
        typer.Option(help="Who says so: user (if it is reported), grader, environment, ...", show_default=False),
    ] = None,
    comment: Annotated[str, typer.Option(help="For people, and for --search.")] = "",
    search: Annotated[
        str | None, typer.Option(help="List what has these words in its comment.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most that are listed.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Report what an answer, a run or a session was worth. Without a reward: list what was reported, newest first."""
    with connect(context) as client:
        if identifier is not None and reward is not None:
            reply = client.feedback.give(reward, source=source or "user", comment=comment, **{of.value: identifier})
        else:
            wanted: dict[str, Any] = {"search": search, "source": source}
            if identifier is not None:
                wanted[f"{of.value}_id"] = identifier
            reply = client.feedback.list(limit=limit, **wanted)
    if as_json:
        print_json(reply)
    elif reward is not None and identifier is not None:
        _print_received(reply)
    else:
        _print_listed(reply["data"])


def _print_received(reply: JsonObject) -> None:
    print_line(f"{reply['reward']:g} for {reply['model'] or reply['session_id'] or reply['run_id']}.")
    for trajectory in reply["trajectories"]:
        print_line(f"Trajectory {trajectory} has it.")
    if reply["runs"]:
        print_note(f"It closes {counted(len(reply['runs']), 'run')}, rewarded when written.")
    if reply["stopped"]:
        print_note(f"This stopped the canary: route {reply['route']} has ended.", style="yellow")
    if reply["promoted"]:
        print_note(f"This promoted the canary: it is the champion, and route {reply['route']} has ended.")


def _print_listed(rows: list[JsonObject]) -> None:
    listed = [
        (
            moment(row["at"]),
            _target(row),
            f"{row['reward']:g}",
            row["source"],
            row["model"],
            len(row["trajectories"]),
            first_line(row["comment"]),
        )
        for row in rows
    ]
    print_table(("at", "of", "#reward", "source", "model", "#trajectories", "comment"), listed)


def _target(row: JsonObject) -> str:
    if row["completion_id"]:
        return str(row["completion_id"])
    kind = next(kind for kind in ("run", "trajectory", "session") if row[f"{kind}_id"])
    return f"{kind} {row[f'{kind}_id']}"
