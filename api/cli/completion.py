"""What a shell completes beside commands and options: names that the service knows, where it answers at once."""

from __future__ import annotations

import typer

from api.cli.invocation import connect
from api.cli.known_names import names_of

_SECONDS = 2.0


def adapter_names(context: typer.Context, incomplete: str) -> list[str]:
    return _completions(context, "adapters", incomplete)


def task_names(context: typer.Context, incomplete: str) -> list[str]:
    return _completions(context, "tasks", incomplete)


def judge_names(context: typer.Context, incomplete: str) -> list[str]:
    return _completions(context, "judges", incomplete)


def schedule_names(context: typer.Context, incomplete: str) -> list[str]:
    return _completions(context, "schedules", incomplete)


def webhook_names(context: typer.Context, incomplete: str) -> list[str]:
    return _completions(context, "webhooks", incomplete)


def _completions(context: typer.Context, noun: str, incomplete: str) -> list[str]:
    try:
        with connect(context, timeout_seconds=_SECONDS) as client:
            return [name for name in names_of(client, noun) if name.startswith(incomplete)]
    except Exception:  # whatever it is, it may not stand in the line that is being typed
        return []
