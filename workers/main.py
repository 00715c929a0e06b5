"""The Celery app of a worker process: `celery -A workers.main:app worker -Q gpu`, or `upstream`, or `default,celery`.

Each process builds its own services after fork; the base model is loaded on the first job and kept.
"""

import os
import socket
import tempfile
import uuid
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from celery.signals import task_received, worker_init, worker_process_init, worker_process_shutdown
from celery.worker.control import inspect_command

from registry import jobs
from registry.database import transaction
from registry.job_requests import JobKind
from registry.logs import configure_logs
from registry.settings import load_settings
from registry.wiring import Services, make_services
from workers import presence
from workers.beat import tick_all
from workers.jobs import judge
from workers.queue import ABOUT, REAP, RUN_JOB, RUN_UPSTREAM_JOB, TICK, make_queue, send_jobs
from workers.runner import Handler, Running, run
from workers.webhooks import WebhookThread

if TYPE_CHECKING:
    from workers.model import Model

log = structlog.get_logger()
settings = load_settings()
app = make_queue(settings)
worker_init.connect(presence.begin)
task_received.connect(presence.note_tick)
inspect_command(name=ABOUT)(presence.about)


class _Process:
    """What a worker process holds; filled after fork."""

    services: Services | None = None
    handlers: Mapping[JobKind, Handler] | None = None
    webhooks: WebhookThread | None = None


@worker_process_init.connect  # type: ignore[untyped-decorator]  # celery is untyped
def _start(**_: Any) -> None:
    configure_logs(settings)
    _Process.services = make_services(settings)
    _Process.webhooks = WebhookThread(_Process.services)
    # Also what the libraries keep for a moment, and the sandbox, stays where it is found again.
    tempfile.tempdir = str(_Process.services.scratch.folder)


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]  # celery is untyped
def _stop(**_: Any) -> None:
    if _Process.webhooks is not None:
        _Process.webhooks.stop()
    if _Process.services is not None:
        _Process.services.close()


def _services() -> Services:
    if _Process.services is None:
        raise RuntimeError("the worker process was not initialised")
    return _Process.services


def make_handlers(model: "Model") -> Mapping[JobKind, Handler]:
    """What runs each kind of job, on a model that is loaded."""
    from workers.jobs import analyze, check_import, evaluate, train_trigger, train_weaver
    from workers.local_judge import own_judge

    return {
        JobKind.TRAIN_WEAVER: partial(train_weaver.run, model=model, send=_send),
        JobKind.TRAIN_TRIGGER: partial(train_trigger.run, model=model),
        JobKind.EVALUATE: partial(evaluate.run, model=model, send=_send),
        JobKind.CHECK_IMPORT: partial(check_import.run, model=model),
        JobKind.ANALYZE: partial(analyze.run, model=model),
        JobKind.JUDGE: partial(judge.run, own_judge=partial(own_judge, model=model)),
    }


def _handlers() -> Mapping[JobKind, Handler]:
    """Loads torch and the base on first use: the housekeeping worker never pays for them."""
    if _Process.handlers is None:
        from memgen.backbone.loading import prepare_process
        from memgen.errors import BaseRefused
        from workers.model import Model

        prepare_process(settings.torch_threads)
        try:
            _Process.handlers = make_handlers(Model(_services()))
        except BaseRefused as error:  # every job fails with these words, instead of none ever ending
            _Process.handlers = dict.fromkeys(JobKind, partial(_refuse, error))
    return _Process.handlers


def _refuse(error: Exception, _running: Running) -> dict[str, Any]:
    raise error


def _send(job_id: uuid.UUID) -> None:
    """A job that follows from another. If the broker is down, the reaper sends it later."""
    send_jobs(app, _services().sessions, [job_id])


@app.task(name=RUN_JOB)  # type: ignore[untyped-decorator]  # celery is untyped
def run_job(job_id: str) -> None:
    _run(_handlers(), job_id)


@app.task(name=RUN_UPSTREAM_JOB)  # type: ignore[untyped-decorator]  # celery is untyped
def run_upstream_job(job_id: str) -> None:
    """A job whose model is an upstream's, in a process that loads none."""
    _run({JobKind.JUDGE: judge.run}, job_id)


def _run(handlers: Mapping[JobKind, Handler], job_id: str) -> None:
    run(_services(), handlers, uuid.UUID(job_id), f"{socket.gethostname()}:{os.getpid()}")


@app.task(name=REAP)  # type: ignore[untyped-decorator]  # celery is untyped
def reap() -> None:
    """Return what dead workers left behind to the queue, and send again what the broker lost."""
    services = _services()
    with transaction(services.sessions) as session:
        waiting = jobs.reap(
            session,
            max_attempts=settings.job_max_attempts,
            lease_seconds=settings.job_lease_seconds,
            redeliver_after_seconds=3 * settings.reaper_interval_seconds,
        )
    send_jobs(app, services.sessions, waiting)
    if waiting:
        log.info("jobs sent to the queue again", jobs=[str(job_id) for job_id in waiting])


@app.task(name=TICK)  # type: ignore[untyped-decorator]  # celery is untyped
def tick() -> None:
    """Start what schedules and judges are due, go on with retrainings, finish deletions; see that webhooks are sent."""
    if _Process.webhooks is not None:
        _Process.webhooks.ensure()
    tick_all(_services(), _send)
