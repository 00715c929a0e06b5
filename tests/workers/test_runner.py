"""What the runner does with jobs that no handler of this release can take."""

import uuid

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
        assert jobs.reap(session, max_attempts=3, redeliver_after_seconds=0) == []


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
