"""`memgen jobs`: what is queued, runs and has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.answers import print_answer
from api.cli.invocation import connect
from api.cli.output import JsonOption, first_line, moment, print_json, print_line, print_table
from api.http.json_object import JsonObject

if TYPE_CHECKING:
    from memgen_client import JsonClient

app = typer.Typer(help="Jobs: trainings and evaluations. Without a subcommand, the newest are listed.")
JobArgument = Annotated[str, typer.Argument(help="Id of the job, see `memgen jobs`.", show_default=False)]
LimitOption = Annotated[int, typer.Option(min=1, max=200, help="How many, the newest first.")]

_EVENTS_PER_PAGE = 1000


@app.callback(invoke_without_command=True, epilog="Example: `memgen jobs --json`")
def main(context: typer.Context, limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """Jobs: trainings and evaluations. Without a subcommand, the newest are listed."""
    if context.invoked_subcommand is None:
        _list(context, limit, as_json)
    elif as_json:
        raise typer.BadParameter(f"put it behind `{context.invoked_subcommand}`", param_hint="--json")


@app.command("list", epilog="Example: `memgen jobs list --limit 5`")
def list_(context: typer.Context, limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """List the newest jobs."""
    _list(context, limit, as_json)


@app.command(epilog="Example: `memgen jobs show 6f0c2a52-4c3e-4a0e-9f0e-0d8b8f6f7f11`")
def show(context: typer.Context, job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Show one job: its request, how far it is, how it ended."""
    print_answer(context, as_json, lambda client: client.jobs.get(job_id), _print_show)


def _print_show(job: JsonObject) -> None:
    from api.cli.progress import describe

    rows: list[tuple[str, Any]] = [
        ("id", job["id"]),
        ("kind", job["kind"]),
        ("adapter", job["adapter"]),
        ("state", job["state"] + (" (waits for the broker)" if job["waits_for_broker"] else "")),
        ("request", _pairs(job["params"])),
        ("progress", f"{job['progress'].get('phase', '')} {describe(job['progress'])}".strip()),
        ("attempt", job["attempt"]),
        ("created", moment(job["created_at"])),
        ("started", moment(job["started_at"])),
        ("finished", moment(job["finished_at"])),
        ("result", _pairs(job["result"] or {})),
        ("error", job["error"]),
    ]
    print_table(("", ""), rows)


@app.command(epilog="Example: `memgen jobs cancel 6f0c2a52-4c3e-4a0e-9f0e-0d8b8f6f7f11`")
def cancel(context: typer.Context, job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Cancel a job: at once if it is queued, within seconds if it runs."""
    print_answer(
        context,
        as_json,
        lambda client: client.jobs.cancel(job_id),
        lambda job: print_line(
            f"Job {job_id} {'is cancelled' if job['state'] == 'cancelled' else 'is being stopped'}."
        ),
    )


@app.command(epilog="Example: `memgen jobs events 6f0c2a52-4c3e-4a0e-9f0e-0d8b8f6f7f11 --follow`")
def events(
    context: typer.Context,
    job_id: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what happened in a job. With --follow and --json, the document comes when the job has ended."""
    found = []
    with connect(context) as client:
        for event in _follow_events(client, job_id) if follow else _all_events(client, job_id):
            if as_json:
                found.append(event)
            else:
                _print_event(event)
    if as_json:
        print_json({"data": found})


def _list(context: typer.Context, limit: int, as_json: bool) -> None:

    print_answer(context, as_json, lambda client: client.jobs.list(limit=limit), _print_list)


def _print_list(page: JsonObject) -> None:
    from api.cli.progress import describe

    rows = [
        (
            job["id"],
            job["kind"],
            job["adapter"],
            job["state"],
            first_line(job["error"])
            if job["error"]
            else describe(job["progress"])
            if job["state"] == "running"
            else "",
            moment(job["created_at"]),
        )
        for job in page["data"]
    ]
    empty = "No job yet. `memgen train ADAPTER --task TASK` starts one."
    print_table(("job", "kind", "adapter", "state", "progress", "created"), rows, empty=empty)


def _follow_events(client: JsonClient, job_id: str) -> Any:
    return (update.data for update in client.jobs.follow(job_id) if update.kind == "event")


def _all_events(client: JsonClient, job_id: str) -> Any:
    after = 0
    while page := client.jobs.events(job_id, after=after, limit=_EVENTS_PER_PAGE):
        yield from page
        after = page[-1]["seq"]


def _print_event(event: JsonObject) -> None:
    from api.cli.progress import event_line

    print_line(f"{moment(event['at'])}  {event['level']:<8}  {event_line(event)}")


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())
