"""The service's own processes as `memgen up` runs them: API, two workers, beat. Knows commands, not who runs them.

Secrets never stand in a command: each process reads them from `<home>/service.env`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from api.local.ports import LOOPBACK


@dataclass(frozen=True)
class AppSpec:
    """A process to run. It counts as running once `ready_url` answers 200; without one, once it has lived for
    `settle_seconds`: long enough to fail at its imports."""

    name: str
    command: tuple[str, ...]
    ready_url: str | None = None
    port: int | None = None
    grace_seconds: float = 8.0
    settle_seconds: float = 3.0
    needed: bool = True
    """Whether `memgen up` fails where it can't be started; the stack goes on without it otherwise."""


def service_apps(home: Path, api_port: int) -> tuple[AppSpec, ...]:
    """API, worker for GPU jobs, worker for everything else, beat."""
    url = f"http://{LOOPBACK}:{api_port}"
    api = (sys.executable, "-m", "uvicorn", "api.app:create_app", "--factory", "--host", LOOPBACK)
    # An open event stream must not hold up a stop.
    api_options = ("--port", str(api_port), "--timeout-graceful-shutdown", "3", "--no-access-log")
    return (
        AppSpec("api", (*api, *api_options), ready_url=f"{url}/readyz", port=api_port),
        AppSpec("worker-gpu", _celery_worker("gpu", "gpu"), needed=False),
        AppSpec("worker-default", _celery_worker("default", "default,celery"), needed=False),
        AppSpec("beat", (*_celery(), "beat", "--pidfile="), needed=False),
    )


def _celery() -> tuple[str, ...]:
    return (sys.executable, "-m", "celery", "-A", "workers.main:app")


def _celery_worker(name: str, queues: str) -> tuple[str, ...]:
    # Workers on one machine have no messages for each other, and mingling costs a second at the start.
    options = ("--pool", "prefork", "--concurrency", "1", "--without-mingle", "--without-gossip")
    return (*_celery(), "worker", "-n", f"{name}@%h", "-Q", queues, *options)
