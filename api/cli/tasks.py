"""`memgen task`: domains with a grader and held-out items."""

from typing import Annotated

import typer

from api.cli.answers import print_answer
from api.cli.arguments import read_pairs
from api.cli.output import JsonOption, print_line, print_table
from api.http.json_object import JsonObject

app = typer.Typer(help="Tasks: named domains with a grader and a held-out suite.", no_args_is_help=True)


@app.command(epilog="Example: `memgen task create gsm --grader numeric --option tolerance=0.01`")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Lower case, such as support-tickets.", show_default=False)],
    grader: Annotated[
        str,
        typer.Option(
            help="exact, numeric, regex, choice, alias, code, function_call, reasoning_gym, or likelihood: held-out "
            "token loss, which rewards no answers."
        ),
    ] = "likelihood",
    option: Annotated[list[str] | None, typer.Option(help="Option of the grader, as key=value; repeatable.")] = None,
    holdout_share: Annotated[
        float | None,
        typer.Option(help="Share of conversations kept for evaluation; the service's default if not given."),
    ] = None,
    shared_turns: Annotated[
        int, typer.Option(min=0, help="Answers that every conversation opens with, such as examples in the prompt.")
    ] = 0,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Create a task. Creating an equal one again is harmless."""
    spec = {"kind": grader, **read_pairs(option or [], "--option")}
    print_answer(
        context,
        as_json,
        lambda client: client.tasks.create(
            name, grader=spec, holdout_share=holdout_share, shared_turns=shared_turns, description=description
        ),
        lambda task: _print_create(task, name, grader),
    )


def _print_create(task: JsonObject, name: str, grader: str) -> None:
    share = task["holdout_share"]
    print_line(f"Task {name}: graded by {grader}, {100 * share:g}% of its conversations are kept for evaluation.")


@app.command("list", epilog="Example: `memgen task list --json`")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List all tasks with their numbers of trajectories."""
    print_answer(context, as_json, lambda client: client.tasks.list(), _print_list)


def _print_list(tasks: list[JsonObject]) -> None:
    rows = [(t["name"], t["grader"]["kind"], t["trajectories"], t["held_out"], t["description"]) for t in tasks]
    print_table(
        ("task", "grader", "#trajectories", "#held out", "description"),
        rows,
        empty="No task yet. Create one with `memgen task create NAME`.",
    )
