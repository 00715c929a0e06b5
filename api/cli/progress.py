"""A job as it runs: a live bar on a terminal, a line for each event elsewhere. All on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from api.cli.invocation import CommandFailed
from api.cli.output import first_line, notes, print_line, print_note
from api.http.json_object import JsonObject

if TYPE_CHECKING:
    from memgen_client import JsonClient

_STYLES = {"warning": "yellow", "error": "red"}


def follow_job(client: JsonClient, job: JsonObject) -> JsonObject:
    """Shows the job until it has ended, and returns it as it is then.

    Ctrl-C ends the showing, not the job.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[details]}", markup=False),
    )
    console = notes()
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task(job["state"], total=None, details="")
            for update in client.jobs.follow(job["id"]):
                if update.kind == "job":
                    job = update.data
                    _show_progress(progress, bar, job)
                elif update.data["level"] != "progress" or not console.is_terminal:
                    _print_event(progress.console, update.data)
    except KeyboardInterrupt:
        print_note(
            f"The job goes on. `memgen jobs show {job['id']}` shows it, `memgen jobs cancel {job['id']}` ends it."
        )
        raise typer.Exit(130) from None
    return job


def print_queued(job: JsonObject) -> None:
    print_line(f"Job {job['id']} is queued. `memgen jobs show {job['id']}` shows it.")


def check_succeeded(job: JsonObject, work: str, advice: str) -> None:
    """Raises CommandFailed: a job that has ended did not succeed; `work` is what it did, such as `training`."""
    if job["state"] != "succeeded":
        how = "was cancelled" if job["error"] is None else f"failed: {first_line(job['error'])}"
        raise CommandFailed(f"The {work} {how}. {advice}")


def event_line(event: JsonObject) -> str:
    details = describe(event["data"]) if event["level"] == "progress" else ""
    return f"{event['message']}: {details}" if details else str(event["message"])


def describe(progress: dict[str, Any]) -> str:
    """What a job last reported of itself, such as `step 40/150, loss 0.8312, 911 tokens/s, 0:12 left`."""
    parts = []
    done, total, unit = _done_of(progress)
    if total is not None:
        parts.append(f"{unit} {done}/{total}".strip())
    return ", ".join([*parts, *_speed(progress)])


def _show_progress(progress: Progress, bar: TaskID, job: JsonObject) -> None:
    reported = job["progress"]
    done, total, _ = _done_of(reported)
    phase = reported.get("phase", job["state"]) if job["state"] == "running" else job["state"]
    progress.update(bar, description=phase, completed=done, total=total, details=", ".join(_speed(reported)))


def _done_of(progress: dict[str, Any]) -> tuple[int, int | None, str]:
    """Training counts steps, evaluation counts items; `total` is None where nothing is counted."""
    if "steps" in progress:
        return int(progress.get("step", 0)), int(progress["steps"]), "step"
    if "of" in progress:
        return int(progress.get("done", 0)), int(progress["of"]), ""
    return 0, None, ""


def _speed(progress: dict[str, Any]) -> list[str]:
    parts = []
    if "reward" in progress:
        parts.append(f"reward {progress['reward']:.3f}")
    if "invoked" in progress:
        parts.append(f"woven at {100 * progress['invoked']:.0f}%")
    if "loss" in progress:
        parts.append(f"loss {progress['loss']:.4f}")
    if "tokens_per_second" in progress:
        parts.append(f"{progress['tokens_per_second']:.0f} tokens/s")
    if "seconds_left" in progress:
        minutes, seconds = divmod(int(progress["seconds_left"]), 60)
        parts.append(f"{minutes}:{seconds:02} left")
    return parts


def _print_event(console: Console, event: JsonObject) -> None:
    # One line each: the full text of a failure is in `memgen jobs show`.
    text = event_line(event).partition("\n")[0]
    console.print(Text(text, style=_STYLES.get(event["level"], "dim")), soft_wrap=True)
