"""`memgen demo`: the whole loop on a real model and real data."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from api.cli.invocation import CommandFailed, invocation
from api.cli.output import JsonOption, print_json


def demo(
    context: typer.Context,
    report: Annotated[Path, typer.Option(dir_okay=False, help="Where the report goes, as JSON.")] = Path(
        "demo-report.json"
    ),
    as_json: JsonOption = False,
) -> None:
    """Run the whole loop here: upload, train, gate, promote, forget, roll back; on CPU, in minutes."""
    from api.cli.demo_story.story import DemoFailed, run_demo

    settings = invocation(context).settings(service_env=False)
    # Whatever the story tells on its way, under --json stdout carries the report alone.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        try:
            code = run_demo(settings, report_path=report)
        except DemoFailed as error:
            raise CommandFailed(f"The demo failed: {error}") from error
    if as_json and report.exists():
        print_json(json.loads(report.read_text(encoding="utf-8")))
    raise typer.Exit(code)
