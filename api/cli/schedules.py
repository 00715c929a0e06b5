"""`memgen schedule`: let an adapter learn by itself."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.answers import print_answer
from api.cli.arguments import read_pairs
from api.cli.completion import adapter_names, schedule_names, task_names
from api.cli.invocation import CommandFailed
from api.cli.output import JsonOption, moment, moment_in, print_line, print_table
from api.http.json_object import JsonObject
from registry.wording import counted

app = typer.Typer(help="Schedules: an adapter learns a task by itself.", no_args_is_help=True)

ScheduleArgument = Annotated[
    str, typer.Argument(help="Name of the schedule.", show_default=False, autocompletion=schedule_names)
]
CronOption = Annotated[str | None, typer.Option("--cron", help="Five fields: '0 3 * * *' is every night at three.")]
ZoneOption = Annotated[str | None, typer.Option(help="IANA time zone of --cron, such as Europe/Berlin. Default: UTC.")]
AfterOption = Annotated[
    int | None,
    typer.Option(min=1, help="After so many new trajectories of the task; with --cron, fewer wait for its next time."),
]
IdleHoursOption = Annotated[
    float | None, typer.Option(help="After so many hours without trajectories and requests, if something is new.")
]
TrainingSetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Field of TrainingConfig as key=value, such as steps=150; repeatable.")
]
MinRewardOption = Annotated[float | None, typer.Option(help="Trajectories with a lower reward are not trained on.")]
SchedulePromoteOption = Annotated[
    bool | None, typer.Option("--promote/--no-promote", help="Move the champion if a version passes its gate.")
]


@app.command(
    epilog="Example: `memgen schedule create nightly --adapter support-bot --task support --cron '0 3 * * *' "
    "--zone Europe/Berlin`"
)
def create(
    context: typer.Context,
    name: ScheduleArgument,
    adapter: Annotated[
        str, typer.Option(help="The adapter that learns.", show_default=False, autocompletion=adapter_names)
    ],
    task: Annotated[str, typer.Option(help="The task to learn.", show_default=False, autocompletion=task_names)],
    cron: CronOption = None,
    zone: ZoneOption = None,
    after: AfterOption = None,
    idle_hours: IdleHoursOption = None,
    settings: TrainingSetOption = None,
    min_reward: MinRewardOption = None,
    promote: SchedulePromoteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a schedule. Each of its runs is a training as `memgen train` starts it."""
    options = _options(cron, zone, after, idle_hours, settings, min_reward, promote)
    print_answer(context, as_json, lambda client: client.schedules.create(name, adapter, task, **options), _print)


@app.command("list", epilog="Example: `memgen schedule list`")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List all schedules, with when each runs next."""
    print_answer(context, as_json, lambda client: client.schedules.list(), _print_list)


def _print_list(found: list[JsonObject]) -> None:
    rows = [(s["name"], s["adapter"], s["task"], _when(s), _next(s), s["waiting"], _last(s)) for s in found]
    print_table(
        ("schedule", "adapter", "task", "when", "next", "#new", "last job"),
        rows,
        empty="No schedule yet. Create one with `memgen schedule create NAME`.",
    )


@app.command(epilog="Example: `memgen schedule show nightly`")
def show(context: typer.Context, name: ScheduleArgument, as_json: JsonOption = False) -> None:
    """Show a schedule and its next runs."""
    print_answer(context, as_json, lambda client: client.schedules.get(name), _print)


@app.command(epilog="Example: `memgen schedule change nightly --cron '30 4 * * *'`")
def change(
    context: typer.Context,
    name: ScheduleArgument,
    cron: CronOption = None,
    zone: ZoneOption = None,
    after: AfterOption = None,
    idle_hours: IdleHoursOption = None,
    settings: TrainingSetOption = None,
    min_reward: MinRewardOption = None,
    promote: SchedulePromoteOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change what is given; --set replaces all settings of the training."""
    options = _options(cron, zone, after, idle_hours, settings, min_reward, promote)
    if not options:
        raise CommandFailed("Nothing to change was given. `memgen schedule change --help` lists what can be.")
    print_answer(context, as_json, lambda client: client.schedules.change(name, **options), _print)


@app.command(epilog="Example: `memgen schedule pause nightly`")
def pause(context: typer.Context, name: ScheduleArgument, as_json: JsonOption = False) -> None:
    """Start no more jobs until it is resumed. A running one goes on."""
    print_answer(context, as_json, lambda client: client.schedules.change(name, paused=True), _print)


@app.command(epilog="Example: `memgen schedule resume nightly`")
def resume(context: typer.Context, name: ScheduleArgument, as_json: JsonOption = False) -> None:
    """Go on; what was missed while paused is not made up for."""
    print_answer(context, as_json, lambda client: client.schedules.change(name, paused=False), _print)


@app.command(epilog="Example: `memgen schedule delete nightly`")
def delete(context: typer.Context, name: ScheduleArgument, as_json: JsonOption = False) -> None:
    """Delete a schedule; its jobs stay."""
    print_answer(
        context,
        as_json,
        lambda client: client.schedules.delete(name),
        lambda schedule: print_line(f"Schedule {name} is deleted."),
    )


@app.command(epilog="Example: `memgen schedule runs nightly --limit 5`")
def runs(
    context: typer.Context,
    name: ScheduleArgument,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, the newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show what came of each time it was due: the job, or why none was started."""
    print_answer(context, as_json, lambda client: client.schedules.runs(name, limit=limit), _print_runs)


def _print_runs(page: JsonObject) -> None:
    rows = [
        (
            moment(r["due_at"]),
            moment(r["at"]),
            r["outcome"],
            r["missed"],
            r["new_trajectories"],
            r["job_id"],
            r["reason"],
        )
        for r in page["data"]
    ]
    print_table(("due", "at", "outcome", "#missed", "#new", "job", "reason"), rows, empty="It was not due yet.")


def _options(
    cron: str | None,
    zone: str | None,
    after: int | None,
    idle_hours: float | None,
    settings: list[str] | None,
    min_reward: float | None,
    promote: bool | None,
) -> dict[str, Any]:
    options = {
        "cron": cron,
        "time_zone": zone,
        "new_trajectories": after,
        "idle_hours": idle_hours,
        "training": read_pairs(settings, "--set") if settings else None,
        "min_reward": min_reward,
        "promote": promote,
    }
    return {name: value for name, value in options.items() if value is not None}


def _print(schedule: JsonObject) -> None:
    print_line(f"{schedule['name']}: {schedule['adapter']} learns {schedule['task']} {_when(schedule)}.")
    if schedule["paused"]:
        print_line("It is paused.", style="yellow")
    for run in schedule["next_runs"]:
        print_line(f"  {moment_in(run, schedule['time_zone'])}")
    print_line(f"New trajectories: {schedule['waiting']}. Last job: {_last(schedule) or 'none'}.")


def _when(schedule: JsonObject) -> str:
    if schedule["kind"] == "cron":
        enough = schedule["new_trajectories"]
        return f"at {schedule['cron']} ({schedule['time_zone']})" + (f", after {enough} new" if enough else "")
    if schedule["kind"] == "idle":
        return f"after {counted(schedule['idle_hours'], 'idle hour')}"
    return f"after {counted(schedule['new_trajectories'], 'new trajectory')}"


def _next(schedule: JsonObject) -> str:
    if schedule["paused"]:
        return "paused"
    return moment_in(schedule["next_runs"][0], schedule["time_zone"]) if schedule["next_runs"] else ""


def _last(schedule: JsonObject) -> str:
    return f"{schedule['last_job']['id']} {schedule['last_job']['state']}" if schedule["last_job"] else ""
