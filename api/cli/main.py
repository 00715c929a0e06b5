"""The command line `memgen`: its commands, global options, and how errors end it.

Knows nothing of what a command does. What a user can cause ends with one clear line on stderr and exit code 1, misuse
with usage and exit code 2, Ctrl-C with 130; a traceback means a bug.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from api.cli import (
    adapters,
    analyses,
    bases,
    chat,
    convert,
    data,
    demo,
    doctor,
    feedback,
    gates,
    hub,
    jobs,
    judges,
    keys,
    local,
    loops,
    pages,
    recordings,
    routes,
    schedules,
    tasks,
    training,
    upload,
    upstreams,
    versions,
    webhooks,
)
from api.cli.failures import Failure, expected, misuse
from api.cli.invocation import Invocation
from api.cli.output import print_json, print_note

_STDOUT_FAILED = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO)
_SERVICE, _LEARN, _VERSIONS, _USE = "Service", "Learning", "Versions", "Use"

app = typer.Typer(
    name="memgen",
    help="Continual learning for LLM agents: memories trained on a frozen base, checked before they serve.",
    epilog="Example: `memgen up && memgen task create support && memgen upload runs.jsonl --task support`",
    no_args_is_help=True,
    add_completion=True,  # typer's own, which asks the very parser: shtab and argcomplete are for argparse's
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command(epilog="Example: `memgen up --port 8080`", rich_help_panel=_SERVICE)(local.up)
app.command(epilog="Example: `memgen down`", rich_help_panel=_SERVICE)(local.down)
app.command(epilog="Example: `memgen status --json`", rich_help_panel=_SERVICE)(local.status)
app.command(epilog="Example: `memgen init --json`", rich_help_panel=_SERVICE)(local.init)
app.command("open", epilog="Example: `memgen open`", rich_help_panel=_SERVICE)(pages.open_page)
app.command(epilog="Example: `memgen doctor`", rich_help_panel=_SERVICE)(doctor.doctor)
app.add_typer(bases.app, name="base", rich_help_panel=_SERVICE)
app.command(epilog="Example: `memgen demo --report demo-report.json`", rich_help_panel=_SERVICE)(demo.demo)
app.add_typer(tasks.app, name="task", rich_help_panel=_LEARN)
app.command(epilog="Example: `memgen upload runs.jsonl.gz --task support`", rich_help_panel=_LEARN)(upload.upload)
app.command(epilog="Example: `memgen convert trajectory.json runs.jsonl --from atif`", rich_help_panel=_LEARN)(
    convert.convert
)
app.command(epilog="Example: `memgen trajectories --text 'refund -rude' --task support`", rich_help_panel=_LEARN)(
    data.trajectories
)
app.add_typer(recordings.app, name="recording", rich_help_panel=_LEARN)
app.add_typer(judges.app, name="judge", rich_help_panel=_LEARN)
app.add_typer(adapters.app, name="adapter", rich_help_panel=_LEARN)
app.command(
    epilog="Example: `memgen train support-bot --task support --steps 150 --set learning_rate=0.002`",
    rich_help_panel=_LEARN,
)(training.train)
app.command(
    epilog="Example: `memgen train-trigger support-bot --parent 3 --task support --set penalty=0.05`",
    rich_help_panel=_LEARN,
)(training.train_trigger)
app.add_typer(jobs.app, name="jobs", rich_help_panel=_LEARN)
app.add_typer(schedules.app, name="schedule", rich_help_panel=_LEARN)
app.add_typer(loops.app, name="loop", rich_help_panel=_LEARN)
app.add_typer(versions.app, name="versions", rich_help_panel=_VERSIONS)
app.command(epilog="Example: `memgen push support-bot@7 acme/support-bot --license mit`", rich_help_panel=_VERSIONS)(
    hub.push
)
app.command(epilog="Example: `memgen pull acme/support-bot support-bot --create`", rich_help_panel=_VERSIONS)(hub.pull)
app.command(epilog="Example: `memgen trace 6f0c2a52-4c3e-4a0e-9f0e-0d8b8f6f7f11`", rich_help_panel=_VERSIONS)(
    data.trace
)
app.command(
    "delete-data",
    epilog="Example: `memgen delete-data user anna --policy withdraw --reason 'asked for it' --apply`",
    rich_help_panel=_SERVICE,
)(data.delete_data)
app.command(epilog="Example: `memgen deletions --json`", rich_help_panel=_SERVICE)(data.deletions)
app.command(epilog="Example: `memgen gc --apply`", rich_help_panel=_SERVICE)(data.gc)
app.command(epilog="Example: `memgen scores support-bot --json`", rich_help_panel=_VERSIONS)(adapters.scores)
app.command(
    epilog="Example: `memgen promote support-bot 7 --expected 6 --reason 'better on refunds'`",
    rich_help_panel=_VERSIONS,
)(adapters.promote)
app.add_typer(gates.app, name="gate", rich_help_panel=_VERSIONS)
app.command(
    epilog="Example: `memgen analyze support-bot@7 --items 100 --clusters 2-6 --against 6`", rich_help_panel=_VERSIONS
)(analyses.analyze)
app.command(epilog="Example: `memgen rollback support-bot --reason 'users complain'`", rich_help_panel=_VERSIONS)(
    adapters.rollback
)
app.command(epilog="Example: `memgen history support-bot --alias champion`", rich_help_panel=_VERSIONS)(
    adapters.history
)
app.add_typer(routes.app, name="route", rich_help_panel=_VERSIONS)
app.command(
    epilog="Example: `memgen chat support-bot@champion 'Where is my order?' --max-tokens 64`", rich_help_panel=_USE
)(chat.chat)
app.command(epilog="Example: `memgen feedback chatcmpl-0f9c 1 --source user`", rich_help_panel=_USE)(feedback.feedback)
app.add_typer(keys.app, name="keys", rich_help_panel=_USE)
app.add_typer(webhooks.app, name="webhooks", rich_help_panel=_USE)
app.add_typer(upstreams.app, name="upstreams", rich_help_panel=_USE)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"memgen {version('memgen-service')}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option(help="Folder of the local service. Default: MEMGEN_HOME, else ~/.memgen.")
    ] = None,
    api_url: Annotated[
        str | None, typer.Option(help="Where the API is. Default: MEMGEN_API_URL, else the local service.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Continual learning for LLM agents: memories trained on a frozen base, checked before they serve."""
    context.obj = Invocation(home=home, api_url=api_url)


def run(arguments: Sequence[str] | None = None) -> None:
    """The entry point; `arguments` default to the process's own.

    With `--json` stdout carries one document in any case: what the command printed, or else what went wrong.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = _print_document(words) if "--json" in words else _run(words)[0]
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in _STDOUT_FAILED or error.filename:
            raise
        if error.errno != errno.EPIPE:  # a reader that has enough is no fault
            print_note(f"memgen: nothing more can be written to stdout: {error.strerror}.", style="red")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter would try again at its end
        code = 1
    sys.exit(code)


def _print_document(words: list[str]) -> int:
    """Exit code of a command that prints one document."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        code, failure = _run(words)
        if failure is not None and not shown.getvalue():
            print_json({"error": failure.document()})
    sys.stdout.write(shown.getvalue())
    return code


def _run(words: list[str]) -> tuple[int, Failure | None]:
    """Exit code of a command, and what was wrong with it."""
    try:
        app(args=words, prog_name="memgen")
    except SystemExit as end:
        if not isinstance(end.code, int | None):  # a message, which the interpreter prints
            raise
        return end.code or 0, misuse(end)
    except Exception as error:
        failure = expected(error)
        if failure is None:
            raise
        print_note(f"memgen: {failure}", style="red")
        return 1, failure
    return 0, None
