"""What the runner does with jobs that no handler of this release can take, and with those that the database broke."""

import uuid
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.orm import Session

from registry import jobs
from registry.database import transaction
from registry.job_requests import Evaluate, JobKind
from registry.models import Job
from registry.wiring import Services
from workers.runner import run


def queue(services: Services, project_id: uuid.UUID, kind: str) -> uuid.UUID:
    """A job as another release may have left it in the queue."""
    with transaction(services.sessions) as session:
        job = jobs.create_job(session, project_id, Evaluate(1))
        job.kind = kind
        return job.id


def test_a_job_of_an_unknown_kind_fails_with_words_and_is_not_tried_again(
    services: Services, project_id: uuid.UUID
) -> None:
    job_id = queue(services, project_id, "bake")
    run(services, {}, job_id, "test-worker")
    with transaction(services.sessions) as session:
        done = session.get_one(Job, job_id)
        assert (done.state, done.attempt) == ("failed", 1)
        assert "no job of kind 'bake'" in (done.error or "")
        assert jobs.reap(session, max_attempts=3, lease_seconds=60, redeliver_after_seconds=0) == []


def test_a_job_whose_request_can_not_be_read_fails_with_words(services: Services, project_id: uuid.UUID) -> None:
    job_id = queue(services, project_id, "train_weaver")

    def read_it(running: object) -> dict[str, object]:
        with transaction(services.sessions) as session:
            return {"request": str(jobs.request_of(session.get_one(Job, job_id)))}

    run(services, {JobKind.TRAIN_WEAVER: read_it}, job_id, "test-worker")
    with transaction(services.sessions) as session:
        done = session.get_one(Job, job_id)
        assert done.state == "failed"
        assert "TrainWeaver: the keys are ['version']" in (done.error or "")


def too_large(session: Session) -> None:
    """What a btree index refuses: an event's `level` has none, a job's `worker` neither, so a key of one's own."""
    session.execute(sa.text("create temporary table keys (key text primary key) on commit drop"))
    session.execute(sa.text("insert into keys select string_agg(md5(n::text), '') from generate_series(1, 4000) n"))


def read_only(session: Session) -> None:
    session.execute(sa.text("set transaction read only"))
    session.execute(sa.text("update jobs set error = null"))


def no_connection(_: Session) -> None:
    raise exc.TimeoutError("no connection of the pool came free")


def cut_off(session: Session) -> None:
    session.execute(sa.text("select pg_terminate_backend(pg_backend_pid())"))


@pytest.mark.parametrize(
    ("do", "state"), [(too_large, "failed"), (read_only, "queued"), (no_connection, "queued"), (cut_off, "queued")]
)
def test_a_job_is_tried_again_where_the_database_may_take_it_later(
    services: Services, project_id: uuid.UUID, do: Callable[[Session], None], state: str
) -> None:
    job_id = queue(services, project_id, "evaluate")

    def work(_: object) -> dict[str, object]:
        with transaction(services.sessions) as session:
            do(session)
        return {}

    run(services, {JobKind.EVALUATE: work}, job_id, "test-worker")
    with transaction(services.sessions) as session:
        assert session.get_one(Job, job_id).state == state
