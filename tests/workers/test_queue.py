"""The queue while the broker is down: a real Valkey that was stopped, and is started again."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
import sqlalchemy as sa
from celery import Celery
from pydantic import SecretStr

from api.local.processes import stop
from api.local.valkey import start_valkey
from registry import jobs
from registry.clock import utc_now
from registry.database import transaction
from registry.deletion.deletions import delete_data
from registry.deletion.erasure import unfinished_erasures
from registry.deletion.scope import DeletionSubject
from registry.job_requests import Evaluate, JudgeTrajectories
from registry.models import Job, Trajectory
from registry.settings import Settings
from registry.wiring import Services
from tests.workers.conftest import Workshop
from tests.workers.jobs.test_strategies import clash
from tests.workers.test_beat import scheduled
from workers.beat import tick_all
from workers.queue import GPU_QUEUE, RUN_UPSTREAM_JOB, UPSTREAM_QUEUE, make_queue, send_jobs

__all__ = ["scheduled"]


@pytest.fixture
def stopped_broker(servers: object, tmp_path: Path) -> str:
    """URL of a Valkey that is not running; `start_valkey(tmp_path / "broker", ...)` starts it there."""
    server = start_valkey(tmp_path / "broker", tmp_path / "broker.log")
    stop([server.child])
    return server.url


@pytest.fixture
def queue(settings: Settings, stopped_broker: str) -> Iterator[Celery]:
    with make_queue(settings.model_copy(update={"broker_url": SecretStr(stopped_broker)})) as app:
        yield app


def _jobs(services: Services, project_id: uuid.UUID, count: int) -> list[uuid.UUID]:
    with transaction(services.sessions) as session:
        return [jobs.create_job(session, project_id, Evaluate(1)).id for _ in range(count)]


def _warnings(services: Services, job_id: uuid.UUID) -> list[str]:
    with transaction(services.sessions) as session:
        return [e.message for e in jobs.list_events(session, job_id, after=0, limit=99) if e.level == "warning"]


def test_what_the_broker_does_not_take_is_sent_when_it_is_back(
    services: Services, project_id: uuid.UUID, queue: Celery, stopped_broker: str, tmp_path: Path
) -> None:
    made = _jobs(services, project_id, 1)
    for model in ("base", "strong/gpt-5", "bot@7"):
        request = JudgeTrajectories(judge="strict", task="talk", model=model, up_to=1, max_calls=1)
        with transaction(services.sessions) as session:
            made.append(jobs.create_job(session, project_id, request).id)
    for _ in range(2):
        assert send_jobs(queue, services.sessions, made) == made
    assert [_warnings(services, job_id) for job_id in made] == [[jobs.UNSENT]] * 4
    with transaction(services.sessions) as session:
        session.execute(sa.update(Job).values(created_at=utc_now() - timedelta(hours=1)))
    server = start_valkey(tmp_path / "broker", tmp_path / "broker.log")
    try:
        with transaction(services.sessions) as session:
            waiting = jobs.reap(session, max_attempts=3, lease_seconds=60, redeliver_after_seconds=30)
        assert waiting == made
        assert send_jobs(queue, services.sessions, waiting) == []
        with redis.Redis(unix_socket_path=urlsplit(server.url).path) as client:
            assert client.llen(GPU_QUEUE) == 3
            [message] = client.lrange(UPSTREAM_QUEUE, 0, -1)
        assert f'"task": "{RUN_UPSTREAM_JOB}"' in message.decode(), "a judge by an upstream delays no training"
    finally:
        stop([server.child])
    with transaction(services.sessions) as session:
        assert jobs.reap(session, max_attempts=3, lease_seconds=60, redeliver_after_seconds=30) == []


def test_a_job_that_a_worker_has_does_not_wait_for_the_broker(
    services: Services, project_id: uuid.UUID, queue: Celery
) -> None:
    """A request that is sent again sends its job again, whatever became of it."""
    [claimed] = _jobs(services, project_id, 1)
    with transaction(services.sessions) as session:
        jobs.claim(session, claimed, "w", 60)
    assert send_jobs(queue, services.sessions, [claimed]) == []
    assert _warnings(services, claimed) == []


def test_a_tick_does_all_of_its_work_while_the_broker_is_down(
    services: Services, project_id: uuid.UUID, scheduled: list[uuid.UUID], queue: Celery
) -> None:
    with transaction(services.sessions) as session:
        some = session.scalars(sa.select(Trajectory.id)).first()
        delete_data(session, project_id, DeletionSubject("trajectory", str(some)), "keep", actor="test", reason="")
    created = tick_all(services, lambda job_id: send_jobs(queue, services.sessions, [job_id]))
    assert len(created) == 2
    with transaction(services.sessions) as session:
        assert unfinished_erasures(session) == []
        assert set(session.scalars(sa.select(Job.state))) == {"queued"}


def test_a_training_that_was_judged_ends_well_while_the_broker_is_down(workshop: Workshop, queue: Celery) -> None:
    """Its retry is kept; nothing of the training itself needs the broker."""
    with transaction(workshop.services.sessions) as session:
        session.execute(sa.text("update adapters set replay_share = 0.1, retry_replay_share = 0.5"))
    workshop.add_task("yes")
    workshop.add_task("clash", clash())
    workshop.work(workshop.queue("yes"))
    sessions = workshop.services.sessions
    workshop.handlers["train_weaver"] = partial(
        workshop.handlers["train_weaver"], send=lambda job_id: send_jobs(queue, sessions, [job_id])
    )
    forgot = workshop.work(workshop.queue("clash", parent=1))
    assert (forgot.state, forgot.error) == ("succeeded", None)
    assert forgot.result is not None
    retry = workshop.job(forgot.result["retry"])
    assert (retry.state, retry.enqueued_at) == ("queued", None)
    assert [e.message for e in workshop.events(retry.id) if e.level == "warning"] == [jobs.UNSENT]
