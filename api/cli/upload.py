"""`memgen upload`: trajectories from files, with an honest report of each line that was refused."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.completion import task_names
from api.cli.invocation import CommandFailed, connect
from api.cli.output import JsonOption, notes, print_json, print_line, print_table, print_warning
from api.http.json_object import JsonObject

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from memgen_client import JsonClient

_COUNTS = ("accepted", "duplicate", "refused", "held_out")
_SHOWN_REFUSALS = 10


def upload(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            exists=True,
            dir_okay=False,
            readable=True,
            show_default=False,
            metavar="FILE...",
            help="JSONL or a document of the format, plain or gzip.",
        ),
    ],
    task: Annotated[
        str | None, typer.Option(help="Task of the trajectories that name none themselves.", autocompletion=task_names)
    ] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", show_default="chat", help="atif, chat, hf-tools, otlp or sharegpt.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="End with exit code 1 if a line was refused.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Upload trajectories. Sending a file again is harmless: only what is missing is added.

    A refused line never hinders the others; the report says which and why. If a file is cut short, what was
    stored stays, and the exit code is 1.
    """
    with connect(context) as client:
        reports = _send(client, files, task, format_name)
    totals = {name: sum(report[name] for report in reports) for name in _COUNTS}
    if as_json:
        complete = all(report["complete"] for report in reports)
        print_json({**totals, "complete": complete, "files": reports})
    else:
        _print_reports(reports)
    for warning in dict.fromkeys(warning for report in reports for warning in report["warnings"]):
        print_warning(warning)
    for report in reports:
        if not report["complete"]:
            raise CommandFailed(f"{report['file']} was not read to its end: {report['stopped']}")
    if totals["refused"]:
        lines = "1 line was" if totals["refused"] == 1 else f"{totals['refused']} lines were"
        message = f"{lines} refused; all others are stored."
        if strict:
            raise CommandFailed(message)
        print_warning(message)


def _send(client: JsonClient, files: Sequence[Path], task: str | None, format_name: str | None) -> list[JsonObject]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    reports = []
    console = notes()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for file in files:
            bar = progress.add_task(file.name, total=file.stat().st_size)
            report = client.trajectories.upload(
                file, task=task, format=format_name, on_progress=partial(_show_sent, progress, bar)
            )
            reports.append({"file": str(file), **report})
    return reports


def _show_sent(progress: Progress, bar: TaskID, sent: int, total: int | None) -> None:
    progress.update(bar, completed=sent, total=total)


def _print_reports(reports: Sequence[JsonObject]) -> None:
    rows = [(r["file"], r["lines_read"], *(r[name] for name in _COUNTS)) for r in reports]
    print_table(("file", "#lines", "#accepted", "#duplicate", "#refused", "#held out"), rows)
    refusals = [(r["file"], each) for r in reports for each in r["lines"]]
    if not refusals:
        return
    print_line("")
    first = refusals[:_SHOWN_REFUSALS]
    print_table(("file", "#line", "code", "reason"), [(file, r["line"], r["code"], r["reason"]) for file, r in first])
    more = sum(r["refused"] for r in reports) - len(first)
    if more:
        print_line(f"and {more} more; --json lists them")
