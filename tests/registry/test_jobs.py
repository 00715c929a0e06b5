"""Jobs: claimed once, fenced by attempt, returned when their worker dies."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from registry import jobs
from registry.database import transaction
from registry.errors import JobNotFound, JobStateConflict
from registry.job_requests import Evaluate, TrainWeaver
from registry.models import Job
from registry.wiring import Services


@pytest.fixture
def job_id(services: Services, project_id: uuid.UUID) -> uuid.UUID:
    with transaction(services.sessions) as session:
        return jobs.create_job(session, project_id, TrainWeaver("a")).id


def _claim(services: Services, job_id: uuid.UUID, worker: str = "w", lease: int = 60) -> int | None:
    with transaction(services.sessions) as session:
        return jobs.claim(session, job_id, worker, lease)


def _expire(services: Services, job_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        session.execute(
            sa.update(Job).where(Job.id == job_id).values(lease_until=sa.func.now() - sa.text("interval '1 second'"))
        )


def _job(services: Services, job_id: uuid.UUID) -> Job:
    with transaction(services.sessions) as session:
        return session.get_one(Job, job_id)


def _reap(services: Services, **values: float) -> list[uuid.UUID]:
    with transaction(services.sessions) as session:
        return jobs.reap(
            session, max_attempts=2, lease_seconds=60, redeliver_after_seconds=values.get("redeliver", 0.0)
        )


def test_many_workers_one_claim(services: Services, job_id: uuid.UUID) -> None:
    with ThreadPoolExecutor(8) as pool:
        attempts = list(pool.map(lambda n: _claim(services, job_id, f"w{n}"), range(16)))
    assert sorted(filter(None, attempts)) == [1]


def test_an_expired_lease_can_be_taken_and_fences_the_old_worker(services: Services, job_id: uuid.UUID) -> None:
    assert _claim(services, job_id, "first") == 1
    assert _claim(services, job_id, "second") is None
    _expire(services, job_id)
    assert _claim(services, job_id, "second") == 2
    with transaction(services.sessions) as session:
        assert not jobs.heartbeat(session, job_id, 1, 60)
        assert not jobs.finish(session, job_id, 1, "succeeded", result={"by": "first"})
        jobs.record_progress(session, job_id, 1, {"by": "first"})
        assert jobs.heartbeat(session, job_id, 2, 60)
        assert jobs.finish(session, job_id, 2, "succeeded", result={"by": "second"})
    done = _job(services, job_id)
    assert (done.state, done.result, done.progress) == ("succeeded", {"by": "second"}, {})
    assert _claim(services, job_id, "third") is None


def test_the_reaper_returns_a_dead_workers_job_and_gives_up_in_the_end(services: Services, job_id: uuid.UUID) -> None:
    _claim(services, job_id, "w1")
    assert _reap(services) == []
    _expire(services, job_id)
    assert _reap(services) == [job_id]
    assert _job(services, job_id).state == "queued"
    _claim(services, job_id, "w2")
    _expire(services, job_id)
    assert _reap(services) == []
    failed = _job(services, job_id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert "its worker stopped without a word 2 times (the last was w2)" in failed.error


def test_a_job_whose_message_was_lost_is_sent_again(services: Services, job_id: uuid.UUID) -> None:
    assert _reap(services, redeliver=30.0) == []
    assert _reap(services) == [job_id]
    with transaction(services.sessions) as session:
        jobs.mark_enqueued(session, job_id)
    assert _reap(services, redeliver=30.0) == []


def test_a_released_job_waits_again(services: Services, job_id: uuid.UUID) -> None:
    attempt = _claim(services, job_id)
    assert attempt == 1
    with transaction(services.sessions) as session:
        jobs.release(session, job_id, attempt, "the store is down")
        messages = [event.message for event in jobs.list_events(session, job_id, after=0, limit=10)]
    assert _job(services, job_id).state == "queued"
    assert messages == ["queued", "returned to the queue: the store is down"]


def test_cancelling(services: Services, project_id: uuid.UUID, job_id: uuid.UUID) -> None:
    attempt = _claim(services, job_id)
    assert attempt == 1
    with transaction(services.sessions) as session:
        assert jobs.request_cancel(session, project_id, job_id).state == "running"
    with transaction(services.sessions) as session:
        assert not jobs.heartbeat(session, job_id, attempt, 60)
        assert jobs.finish(session, job_id, attempt, "cancelled")
    with transaction(services.sessions) as session, pytest.raises(JobStateConflict, match="is cancelled; only"):
        jobs.request_cancel(session, project_id, job_id)

    with transaction(services.sessions) as session:
        waiting = jobs.create_job(session, project_id, Evaluate(1))
        assert jobs.request_cancel(session, project_id, waiting.id).state == "cancelled"
    assert _claim(services, waiting.id) is None


def test_a_job_that_was_begun_meanwhile_is_asked_to_stop(
    services: Services, project_id: uuid.UUID, job_id: uuid.UUID
) -> None:
    """The session that cancels knew it as queued; its worker goes on writing until it has heard of it."""
    with transaction(services.sessions) as session:
        known = jobs.get_job(session, project_id, job_id)
        assert known.state == "queued"
        assert _claim(services, job_id) == 1
        assert jobs.request_cancel(session, project_id, job_id).state == "running"
    assert (_job(services, job_id).state, _job(services, job_id).cancel_requested) == ("running", True)


def test_another_projects_job_does_not_exist(services: Services, job_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session, pytest.raises(JobNotFound):
        jobs.get_job(session, uuid.uuid4(), job_id)


def test_events_are_read_onwards(services: Services, job_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        for n in range(3):
            jobs.add_event(session, job_id, "info", f"event {n}", {"n": n})
    with transaction(services.sessions) as session:
        first = jobs.list_events(session, job_id, after=0, limit=2)
        rest = jobs.list_events(session, job_id, after=first[-1].seq, limit=10)
    assert [e.message for e in first + rest] == ["queued", "event 0", "event 1", "event 2"]
    assert all(e.at.timestamp() <= time.time() for e in rest)


DAY = timedelta(days=1)


def _date(services: Services, job_id: uuid.UUID, column: str, ahead: timedelta) -> None:
    with transaction(services.sessions) as session:
        session.execute(sa.update(Job).where(Job.id == job_id).values({column: sa.func.now() + ahead}))


def test_a_lease_of_a_clock_that_was_set_back_ends_as_new_ones_do(services: Services, job_id: uuid.UUID) -> None:
    _claim(services, job_id)
    _date(services, job_id, "lease_until", DAY)
    assert _reap(services) == [], "its worker may live, and then renews the lease"
    with transaction(services.sessions) as session:
        left = session.scalars(sa.select(Job.lease_until - sa.func.now())).one()
    assert timedelta(seconds=50) < left <= timedelta(seconds=60)
    _expire(services, job_id)
    assert _reap(services) == [job_id]


def test_a_message_that_was_sent_by_a_clock_that_was_set_back_is_sent_again(
    services: Services, job_id: uuid.UUID
) -> None:
    assert _reap(services, redeliver=60.0) == []
    for column in ("created_at", "enqueued_at"):
        _date(services, job_id, column, DAY)
        assert _reap(services, redeliver=60.0) == [job_id]
    with transaction(services.sessions) as session:
        jobs.mark_enqueued(session, job_id)
    assert _reap(services, redeliver=60.0) == []
