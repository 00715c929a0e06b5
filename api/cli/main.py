"""The command line `memgen`: its commands, global options, and how errors end it.

Knows nothing of what a command does. What a user can cause ends with one clear line on stderr and exit code 1, misuse
with usage and exit code 2; a traceback means a bug.
"""

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
from api.cli.invocation import CommandFailed, Invocation
from api.cli.output import print_note

_SERVICE, _LEARN, _VERSIONS, _USE = "Service", "Learning", "Versions", "Use"
_KEY = "The key came from MEMGEN_API_KEY, or else from service.env in MEMGEN_HOME."
_HINTS = {
    "task_not_found": "`memgen task list` shows the tasks, `memgen task create NAME` makes one.",
    "adapter_not_found": "`memgen adapter list` shows the adapters, `memgen adapter create NAME` makes one.",
    "model_not_found": "`memgen adapter list` shows the adapters, `memgen versions ADAPTER` their versions.",
    "version_not_found": "`memgen versions ADAPTER` shows them.",
    "route_not_found": "`memgen route list ADAPTER` shows them.",
    "analysis_not_found": "`memgen analyze ADAPTER@VERSION` makes one.",
    "judge_not_found": "`memgen judge list` shows the judges, `memgen judge create NAME` makes one.",
    "schedule_not_found": "`memgen schedule list` shows them.",
    "webhook_not_found": "`memgen webhooks list` shows them.",
    "loop_not_found": "`memgen loop list` shows them, `memgen loop create ADAPTER --task TASK` makes one.",
    "stale_alias": "`memgen versions ADAPTER` shows where the aliases stand.",
    "upstream_not_found": "`memgen upstreams list` shows them.",
    "unknown_key": _KEY,
    "invalid_api_key": _KEY,
}
"""The error's advice as commands, by the API's error code."""

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
    """The entry point; `arguments` default to the process's own."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="memgen")
    except Exception as error:
        message = _expected(error)
        if message is None:
            raise
        print_note(f"memgen: {message}", style="red")
        sys.exit(1)


def _expected(error: Exception) -> str | None:
    """Message for an error that a user can cause; None for a bug."""
    from api.local.errors import LocalStackError
    from memgen.errors import MemgenError
    from memgen_client import ApiError, ClientError
    from registry.errors import RegistryError

    if isinstance(error, ApiError):
        text = " ".join(f"{error.detail}. {_HINTS.get(error.code, '')}".replace("..", ".").split())
        return f"{text} ({error.status} {error.code})"
    if isinstance(error, CommandFailed | ClientError | LocalStackError | RegistryError | MemgenError):
        return str(error)
    return None
