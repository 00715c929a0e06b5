"""`memgen loop`: an agent's runs become its experience by themselves. One command sets it up, one screen shows it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.answers import print_answer
from api.cli.arguments import read_pairs
from api.cli.completion import adapter_names, judge_names, task_names
from api.cli.invocation import CommandFailed
from api.cli.loop_screen import print_screen
from api.cli.output import JsonOption, moment, print_line, print_note, print_table, print_warning
from api.http.json_object import JsonObject

app = typer.Typer(help="Loops: what an agent does becomes what it knows, by itself.", no_args_is_help=True)

LoopArgument = Annotated[
    str,
    typer.Argument(help="Name of the adapter, which is the loop's.", show_default=False, autocompletion=adapter_names),
]
EveryOption = Annotated[
    str | None,
    typer.Option(help="night, day, hour, week, an interval such as 6h or 30m, or a cron expression. Default: night."),
]
AfterOption = Annotated[
    int | None, typer.Option(min=1, help="So many new runs at least; with --every, fewer wait for its next time.")
]
_WORDS = 80
"""Characters of a reason in a list; `memgen loop show` has more."""
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", help="Field of TrainingConfig as key=value; repeatable.")
]
MakeOption = Annotated[bool, typer.Option("--create", help="Make the adapter and the task if they are missing.")]
GraderOption = Annotated[
    str | None, typer.Option(help="Grader of a task that --create makes; see `memgen task create --help`.")
]
QuietOption = Annotated[float | None, typer.Option(help="Hours without traffic or rewards until it says so.")]
CanaryPromotionOption = Annotated[
    str | None, typer.Option("--promotion", help="What makes it champion: better, non_inferior, or never (by hand).")
]


@app.command(
    epilog="Example: `memgen loop create support-bot --task support --create --every night --after 200 "
    "--zone Europe/Berlin`"
)
def create(
    context: typer.Context,
    adapter: LoopArgument,
    task: Annotated[str, typer.Option(help="The task that it learns.", show_default=False, autocompletion=task_names)],
    every: EveryOption = None,
    zone: Annotated[str | None, typer.Option(help="IANA time zone of --every, such as Europe/Berlin.")] = None,
    idle_hours: Annotated[float | None, typer.Option(help="Instead of --every: so long without requests.")] = None,
    after: AfterOption = None,
    settings: SettingsOption = None,
    min_reward: Annotated[float | None, typer.Option(help="Runs with a lower reward are not learned.")] = None,
    gate_margin: Annotated[float | None, typer.Option(help="Largest drop of a score that the gate lets pass.")] = None,
    canary_share: Annotated[float | None, typer.Option(help="Share of the sessions that try a new version.")] = None,
    promotion: CanaryPromotionOption = None,
    margin: Annotated[float | None, typer.Option(help="How much worse is too much, for non_inferior.")] = None,
    recording: Annotated[str | None, typer.Option(help="off, asked, or all, which is the default.")] = None,
    recording_share: Annotated[float | None, typer.Option(help="Share of the sessions that all records.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="Judge that rewards what nobody else does.", autocompletion=judge_names)
    ] = None,
    keep: Annotated[int | None, typer.Option(min=1, help="Newest versions that keep their bytes.")] = None,
    quiet_hours: QuietOption = None,
    failures: Annotated[int | None, typer.Option(min=1, help="Failures in a row at which trainings are held.")] = None,
    make: MakeOption = False,
    grader: GraderOption = None,
    option: Annotated[list[str] | None, typer.Option(help="Option of that grader, as key=value; repeatable.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Set a loop up: schedule, gate with canary, retention and recording, in one step.

    Doing it again changes what is given anew and leaves the rest as it is.
    """
    if option and not grader:
        raise CommandFailed("--option was given without --grader; it is an option of the grader.")
    options: dict[str, Any] = {
        "every": every,
        "time_zone": zone,
        "idle_hours": idle_hours,
        "after": after,
        "training": read_pairs(settings, "--set") if settings else None,
        "min_reward": min_reward,
        "gate_margin": gate_margin,
        "canary_share": canary_share,
        "canary_promotion": promotion,
        "canary_margin": margin,
        "recording": recording,
        "recording_share": recording_share,
        "judge": judge,
        "keep_last": keep,
        "quiet_hours": quiet_hours,
        "most_failures": failures,
        "create": make or None,
        "grader": {"kind": grader, **read_pairs(option or [], "--option")} if grader else None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    print_answer(
        context,
        as_json,
        lambda client: client.loops.create(adapter, task, **given),
        lambda made: _print_setup(made, adapter, task),
    )


def _print_setup(made: JsonObject, adapter: str, task: str) -> None:
    print_table(("part", "outcome", "what it is"), [(p["part"], p["outcome"], p["text"]) for p in made["setup"]])
    print_line(f"The loop of {adapter} learns {task}. State: {made['state']}.")
    print_note(f"Next: point the agent at this service with model {adapter!r}, then memgen loop show {adapter}")


@app.command("list", epilog="Example: `memgen loop list`")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List all loops with their states."""
    print_answer(context, as_json, lambda client: client.loops.list(), _print_list)


def _print_list(found: list[JsonObject]) -> None:
    rows = [
        (
            each["name"],
            each["task"],
            f"{each['state']}, held" if each["held"] else each["state"],
            moment(each["since"]),
            each["reason"][:_WORDS],
        )
        for each in found
    ]
    print_table(
        ("loop", "task", "state", "since", "why"),
        rows,
        empty="No loop yet. Set one up with `memgen loop create ADAPTER --task TASK`.",
    )


@app.command(epilog="Example: `memgen loop show support-bot`")
def show(context: typer.Context, name: LoopArgument, as_json: JsonOption = False) -> None:
    """Show on one screen what was recorded, rewarded, trained, tried and promoted, what waits, and why not."""
    print_answer(context, as_json, lambda client: client.loops.get(name), print_screen)


@app.command(epilog="Example: `memgen loop pause support-bot`")
def pause(context: typer.Context, name: LoopArgument, as_json: JsonOption = False) -> None:
    """Start no more trainings until it is resumed. Recording, a running job and a live canary go on."""
    print_answer(context, as_json, lambda client: client.loops.pause(name), _print_state)


@app.command(epilog="Example: `memgen loop resume support-bot`")
def resume(context: typer.Context, name: LoopArgument, as_json: JsonOption = False) -> None:
    """Let it go on, also after failures; they are counted anew."""
    print_answer(context, as_json, lambda client: client.loops.resume(name), _print_state)


@app.command(epilog="Example: `memgen loop history support-bot`")
def history(
    context: typer.Context,
    name: LoopArgument,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, the newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show when its state changed, and who changed what."""
    print_answer(context, as_json, lambda client: client.loops.history(name, limit=limit), _print_history)


def _print_history(page: JsonObject) -> None:
    rows = [(moment(c["at"]), c["kind"], c["to_state"], c["actor"], c["reason"]) for c in page["data"]]
    print_table(("at", "change", "state", "by", "why"), rows)


@app.command(epilog="Example: `memgen loop delete support-bot`")
def delete(context: typer.Context, name: LoopArgument, as_json: JsonOption = False) -> None:
    """Delete a loop and its schedule. What it made stays, and is named."""
    print_answer(
        context, as_json, lambda client: client.loops.delete(name), lambda deleted: _print_delete(deleted, name)
    )


def _print_delete(deleted: JsonObject, name: str) -> None:
    print_line(f"The loop of {name} is deleted, and its schedule {deleted['schedule']}. What stays:")
    for each in deleted["stays"]:
        print_line(f"  {each}")


def _print_state(loop: JsonObject) -> None:
    print_line(f"{loop['name']} is {loop['state']}" + (f": {loop['reason']}." if loop["reason"] else "."))
    if loop["advice"]:
        print_warning(f"{loop['advice']}.")
