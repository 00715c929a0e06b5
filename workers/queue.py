"""The queue: how a job's id reaches a worker, and a question all workers. The API may know no other module that works.

Messages carry ids only, are short, and may arrive twice; the job's row decides (`registry.jobs`). Nothing is lost while
the broker is down: jobs stay queued in the database until the reaper sends them.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import RedisError
from sqlalchemy.orm import Session, sessionmaker

from registry import jobs
from registry.database import transaction
from registry.settings import Settings
from registry.wiring import configured

GPU_QUEUE = "gpu"
DEFAULT_QUEUE = "default"
UPSTREAM_QUEUE = "upstream"
"""Jobs that wait for upstreams and need no model here: a slow one delays neither trainings nor housekeeping."""
RUN_JOB = "workers.run_job"
RUN_UPSTREAM_JOB = "workers.run_upstream_job"
REAP = "workers.reap"
TICK = "workers.tick"
ABOUT = "memgen_about"
"""What workers are asked over the broker to say what they are (`workers.presence`)."""

Send = Callable[[uuid.UUID], None]
"""Sends a committed job to the workers, and does not fail: what is not sent, the reaper sends later."""

log = structlog.get_logger()

_SOCKET_OPTIONS = {
    # A message taken by a worker that was killed is delivered again after this long; the reaper is faster.
    "visibility_timeout": 3600,
    "socket_keepalive": True,
    "socket_connect_timeout": 5,
}


def make_queue(settings: Settings) -> Celery:
    """A Celery app for sending and, with `workers.main`, for working. Connects on first use."""
    app = Celery("memgen", broker=configured(settings.broker_url, "MEMGEN_BROKER_URL"), set_as_current=False)
    app.conf.update(
        task_default_queue=DEFAULT_QUEUE,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options=_SOCKET_OPTIONS,
        timezone="UTC",
        # Both entries below are due every few seconds, so nothing has to be remembered from one start to the next; a
        # schedule kept in a file would keep beat from starting once that is damaged.
        beat_scheduler="workers.clock_proof:ClockProofScheduler",
        beat_schedule={
            "reap": {
                "task": REAP,
                "schedule": settings.reaper_interval_seconds,
                # A tick that could not be delivered in time is worthless: the next one does its work.
                "options": {"queue": DEFAULT_QUEUE, "expires": settings.reaper_interval_seconds},
            },
            "tick": {
                "task": TICK,
                "schedule": settings.tick_interval_seconds,
                "options": {"queue": DEFAULT_QUEUE, "expires": settings.tick_interval_seconds},
            },
        },
    )
    return app


@dataclass(frozen=True)
class WorkerAnswer:
    """What a worker says of itself."""

    name: str
    code: str | None
    """Which sources it runs; None for one of a release that does not say."""
    queues: tuple[str, ...] = ()
    seconds_up: float = 0.0
    seconds_since_tick: float | None = None
    """Since it last got a tick of the beat; None if it has seen none."""


def ask_workers(app: Celery, *, wait_seconds: float) -> list[WorkerAnswer]:
    """What the living workers say of themselves, by name; waits for as long as said, since nobody knows how many live.

    Raises:
        OSError, KombuError, RedisError: the broker is down.
    """
    replies = app.control.broadcast(ABOUT, reply=True, timeout=wait_seconds) or []
    found = {name: reply for answers in replies for name, reply in answers.items()}
    return [_read_answer(name, found[name]) for name in sorted(found)]


def _read_answer(name: str, reply: dict[str, Any]) -> WorkerAnswer:
    if "code" not in reply:  # an error: it does not know the question
        return WorkerAnswer(name, None)
    return WorkerAnswer(name, reply["code"], tuple(reply["queues"]), reply["seconds_up"], reply["seconds_since_tick"])


def send_jobs(app: Celery, sessions: sessionmaker[Session], job_ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Send jobs to their workers, after the transactions that created them have committed.

    Returns:
        The jobs that wait for a broker that is down. Its faults are not raised: a job that is not sent stays queued
        with an event that says so, and the reaper sends it. After the first failure no other job is tried, so that a
        broker that does not answer is waited for once.
    """
    with transaction(sessions) as session:
        for_upstreams = jobs.waiting_for_upstreams(session, job_ids)
    for place, job_id in enumerate(job_ids):
        name, queue = (RUN_UPSTREAM_JOB, UPSTREAM_QUEUE) if job_id in for_upstreams else (RUN_JOB, GPU_QUEUE)
        try:
            app.send_task(name, args=[str(job_id)], queue=queue, retry=True, retry_policy=_RETRY)
        except _BROKER_FAULTS as error:
            left = job_ids[place:]
            log.warning(
                "the broker took no jobs; the reaper will send them", jobs=list(map(str, left)), error=str(error)
            )
            with transaction(sessions) as session:
                return jobs.record_unsent(session, left)
        with transaction(sessions) as session:
            jobs.mark_enqueued(session, job_id)
    return []


_BROKER_FAULTS = (KombuError, RedisError, OSError)
"""Celery wraps what a lost connection raises in kombu's own errors; what its transport misses arrives as it was."""

_RETRY: dict[str, Any] = {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2}
