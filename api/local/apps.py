"""The service's own processes as `memgen up` runs them: API, three workers, beat, and a vLLM server where that is the
engine. Knows commands, not who runs them.

Secrets never stand in a command: each process reads them from `<home>/service.env`.
"""

import sys
from dataclasses import dataclass

from api.local.ports import LOOPBACK
from registry.settings import Settings

_DRAIN_SECONDS = 3.0
"""How long a stop waits for answers: a person waits for it."""
_ENDING_SECONDS = 7.0
"""What the API takes to end its answers and itself, after that."""


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
    is_used_by_others: bool = False
    """Stopped with the servers, when no process needs it any more."""


@dataclass(frozen=True)
class AppPorts:
    api: int
    vllm: int | None = None
    """None where no vLLM server is to run here."""


def service_apps(settings: Settings, ports: AppPorts) -> tuple[AppSpec, ...]:
    """vLLM server if one is to run, API, workers for GPU jobs, for upstreams and for everything else, beat."""
    return (
        *([_vllm(ports.vllm)] if ports.vllm is not None else []),
        _api(settings, ports.api),
        AppSpec("worker-gpu", _celery_worker("gpu", "gpu"), needed=False),
        AppSpec("worker-upstream", _celery_worker("upstream", "upstream"), needed=False),
        AppSpec("worker-default", _celery_worker("default", "default,celery"), needed=False),
        AppSpec("beat", (*_celery(), "beat", "--pidfile="), needed=False),
    )


def _vllm(port: int) -> AppSpec:
    return AppSpec(
        "vllm",
        (sys.executable, "-m", "api.local.vllm_program", "--port", str(port)),
        ready_url=f"http://{LOOPBACK}:{port}/memgen/base",
        port=port,
        is_used_by_others=True,
    )


def _api(settings: Settings, port: int) -> AppSpec:
    is_set = settings.model_fields_set
    notice = settings.drain_notice_seconds if "drain_notice_seconds" in is_set else 0.0  # no proxy stands before it
    drain = settings.drain_seconds if "drain_seconds" in is_set else _DRAIN_SECONDS
    place = ("--host", LOOPBACK, "--port", str(port))
    leaving = ("--notice-seconds", f"{notice:g}", "--drain-seconds", f"{drain:g}")
    return AppSpec(
        "api",
        (sys.executable, "-m", "api.server", *place, *leaving),
        ready_url=f"http://{LOOPBACK}:{port}/readyz",
        port=port,
        grace_seconds=notice + drain + _ENDING_SECONDS,
    )


def _celery() -> tuple[str, ...]:
    return (sys.executable, "-m", "celery", "-A", "workers.main:app")


def _celery_worker(name: str, queues: str) -> tuple[str, ...]:
    # Workers on one machine have no messages for each other, and mingling costs a second at the start.
    options = ("--pool", "prefork", "--concurrency", "1", "--without-mingle", "--without-gossip")
    return (*_celery(), "worker", "-n", f"{name}@%h", "-Q", queues, *options)
