"""Jobs: the row is the truth, the broker only carries ids.

A worker claims a job by a conditional update that gives it a lease and an attempt number; it may write only while
that attempt is current. An expired lease returns the job to the queue. Times are the database's, so that clocks of
workers need not agree.
"""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session, joinedload

from registry.clock import FARTHEST_AHEAD
from registry.errors import JobNotFound, JobStateConflict, UnreadableRow
from registry.job_requests import (
    AnyTraining,
    JobKind,
    JobRequest,
    read_request,
    replaced_named,
    task_named,
    versions_named,
)
from registry.json_text import storable
from registry.models import Adapter, Job, JobEvent, Retraining, Schedule
from registry.outbox import emit
from registry.wording import counted

LIVE = ("queued", "running")
UNSENT = "the broker is down; the job is sent when it is back"

RequestT = TypeVar("RequestT", bound=JobRequest)


def create_job(session: Session, project_id: uuid.UUID, request: JobRequest, adapter: Adapter | None = None) -> Job:
    job = Job(project_id=project_id, kind=request.kind.value, params=request.to_json(), adapter=adapter)
    session.add(job)
    session.flush()
    add_event(session, job.id, "info", "queued")
    return job


def request_of(job: Job) -> JobRequest:
    return read_request(job.kind, job.params)


def request_as(job: Job, expected: type[RequestT]) -> RequestT:
    """The request of a job whose kind the caller knows."""
    request = request_of(job)
    if not isinstance(request, expected):
        raise RuntimeError(f"job {job.id} is of kind {job.kind}; expected {expected.kind}")
    return request


def training_of(job: Job) -> AnyTraining | None:
    """The request of a training; None for a job of another kind, or one that this release can't read."""
    try:
        request = request_of(job)
    except UnreadableRow:
        return None
    return request if isinstance(request, AnyTraining) else None


def adapter_of(job: Job) -> Adapter:
    """The adapter of a job of a kind that needs one."""
    if job.adapter is None:
        raise RuntimeError(f"job {job.id} of kind {job.kind} has no adapter; expected the one that it works on")
    return job.adapter


def replaced_number(job: Job) -> int | None:
    """Number of the version that the job's version is trained anew for, without deleted data."""
    return replaced_named(job.params)


def versions_needed(job: Job) -> tuple[int, ...]:
    """Numbers of the versions that the job reads, also of a job that this release can't read otherwise."""
    return versions_named(job.kind, job.params)


def may_promote() -> ColumnElement[bool]:
    """Whether a job's version may be promoted once it has passed its gate, in a query on jobs."""
    return func.coalesce(Job.params["promote"].as_boolean(), True)


def replace_job(session: Session, job: Job, request: JobRequest) -> Job:
    """Create the job that goes on in place of `job`, and hand over to it all that waits for `job`.

    Whether `job` was cancelled, or did its work and a second attempt at it follows, is the caller's business. A
    schedule whose last job is `job` starts none beside the new one; the retraining step that `job` was to do is done
    by the new one, and the next step waits for it. Runs of schedules stay: they record what was started.
    """
    following = create_job(session, job.project_id, request, job.adapter)
    session.execute(update(Schedule).where(Schedule.last_job_id == job.id).values(last_job_id=following.id))
    session.execute(update(Retraining).where(Retraining.job_id == job.id).values(job_id=following.id))
    return following


def get_job(session: Session, project_id: uuid.UUID, job_id: uuid.UUID) -> Job:
    """Raises JobNotFound."""
    found = session.scalars(select(Job).where(Job.id == job_id, Job.project_id == project_id)).one_or_none()
    if found is None:
        raise JobNotFound(f"no job {job_id} in this project; `memgen jobs` lists them")
    return found


def list_jobs(session: Session, project_id: uuid.UUID, *, before: int | None, limit: int) -> list[Job]:
    """Newest first.

    Args:
        before: the `seq` of the last job already seen.
    """
    query = select(Job).where(Job.project_id == project_id)
    if before is not None:
        query = query.where(Job.seq < before)
    return list(session.scalars(query.options(joinedload(Job.adapter)).order_by(Job.seq.desc()).limit(limit)))


def waiting_for_upstreams(session: Session, job_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Which of the jobs need no model of ours: judges whose model is an upstream's."""
    return set(session.scalars(select(Job.id).where(Job.id.in_(job_ids), asks_upstream())))


def asks_upstream() -> ColumnElement[bool]:
    """Whether a job needs no model of ours, only an upstream's."""
    return and_(Job.kind == JobKind.JUDGE.value, Job.params["model"].as_string().contains("/"))


def mark_enqueued(session: Session, job_id: uuid.UUID) -> None:
    session.execute(update(Job).where(Job.id == job_id).values(enqueued_at=func.now()))


def record_unsent(session: Session, job_ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Record once, as an event of each job that still waits for the broker, that it waits. Returns those jobs."""
    waiting = session.scalars(
        select(Job.id).where(Job.id.in_(job_ids), Job.state == "queued", Job.enqueued_at.is_(None)).order_by(Job.seq)
    ).all()
    known = session.scalars(select(JobEvent.job_id).where(JobEvent.job_id.in_(waiting), JobEvent.message == UNSENT))
    for job_id in set(waiting) - set(known):
        add_event(session, job_id, "warning", UNSENT)
    return list(waiting)


def claim(session: Session, job_id: uuid.UUID, worker: str, lease_seconds: int) -> int | None:
    """Take a queued job, or one whose lease ran out.

    Returns:
        The number of the attempt; None if the job has ended or another worker has it.
    """
    takeable = or_(Job.state == "queued", and_(Job.state == "running", Job.lease_until < func.now()))
    cancelled = session.scalar(
        update(Job)
        .where(Job.id == job_id, takeable, Job.cancel_requested)
        .values(state="cancelled", lease_until=None, finished_at=func.now())
        .returning(Job.id)
    )
    if cancelled is not None:
        add_event(session, job_id, "info", "cancelled: it was to stop when it went back to the queue")
        return None
    return session.scalar(
        update(Job)
        .where(Job.id == job_id, takeable)
        .values(
            state="running",
            attempt=Job.attempt + 1,
            worker=worker,
            lease_until=func.now() + timedelta(seconds=lease_seconds),
            started_at=func.coalesce(Job.started_at, func.now()),
        )
        .returning(Job.attempt)
    )


def heartbeat(session: Session, job_id: uuid.UUID, attempt: int, lease_seconds: int) -> bool:
    """Extend the lease. False when the worker must stop: the job was cancelled, or is no longer this attempt's."""
    cancel_requested = session.scalar(
        _own(job_id, attempt)
        .values(lease_until=func.now() + timedelta(seconds=lease_seconds))
        .returning(Job.cancel_requested)
    )
    return cancel_requested is False


def record_progress(session: Session, job_id: uuid.UUID, attempt: int, progress: dict[str, Any]) -> None:
    session.execute(_own(job_id, attempt).values(progress=progress))


def set_dataset(session: Session, job_id: uuid.UUID, attempt: int, dataset_id: uuid.UUID) -> None:
    """Bind the job to its dataset, once."""
    session.execute(_own(job_id, attempt).where(Job.dataset_id.is_(None)).values(dataset_id=dataset_id))


def finish(
    session: Session,
    job_id: uuid.UUID,
    attempt: int,
    state: str,
    *,
    result: dict[str, Any] | None = None,
    error: str | None = None,
) -> bool:
    """End a running job. False if it is no longer this attempt's."""
    error = None if error is None else storable(error)
    ended = session.scalar(
        _own(job_id, attempt)
        .values(state=state, result=result, error=error, lease_until=None, finished_at=func.now())
        .returning(Job.id)
    )
    if ended is not None:
        level = "error" if state == "failed" else "info"
        add_event(session, job_id, level, state if error is None else f"{state}: {error}", result or {})
        if state == "failed":
            _emit_failed(session, session.get_one(Job, job_id, populate_existing=True))
    return ended is not None


def release(session: Session, job_id: uuid.UUID, attempt: int, why: str) -> None:
    """Give a running job back to the queue: an infrastructure fault, or a worker shutting down."""
    released = session.scalar(
        _own(job_id, attempt).values(state="queued", lease_until=None, enqueued_at=None).returning(Job.id)
    )
    if released is not None:
        add_event(session, job_id, "warning", f"returned to the queue: {why}")


def lock_job(session: Session, project_id: uuid.UUID, job_id: uuid.UUID) -> Job:
    """The job as it is now, and stays until the transaction ends. Raises JobNotFound."""
    query = select(Job).where(Job.id == job_id, Job.project_id == project_id).with_for_update()
    # Read again behind the lock: the session may know the job as queued while a worker has begun it.
    job = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if job is None:
        raise JobNotFound(f"no job {job_id} in this project; `memgen jobs` lists them")
    return job


def request_cancel(session: Session, project_id: uuid.UUID, job_id: uuid.UUID) -> Job:
    """Cancel a queued job at once; ask a running one to stop.

    Raises:
        JobStateConflict: the job has ended.
    """
    job = lock_job(session, project_id, job_id)
    if job.state not in LIVE:
        raise JobStateConflict(f"job {job_id} is {job.state}; only a queued or running job can be cancelled")
    job.cancel_requested, is_queued = True, job.state == "queued"
    if is_queued:
        job.state, job.finished_at = "cancelled", session.scalar(select(func.now()))
    add_event(session, job.id, "info", "cancelled before it began" if is_queued else "cancellation requested")
    return job


def reap(session: Session, *, max_attempts: int, lease_seconds: int, redeliver_after_seconds: float) -> list[uuid.UUID]:
    """Return expired leases to the queue and fail jobs that used up their attempts.

    Returns:
        Ids to enqueue: jobs just returned, and queued ones whose message was never sent or seems lost. Sending a job
        twice is harmless, because a claim succeeds once.
    """
    # A lease of a clock that has been set back ends when a new one does; a worker that lives renews it.
    lease = timedelta(seconds=lease_seconds)
    too_long = Job.state == "running", Job.lease_until > func.now() + lease + FARTHEST_AHEAD
    session.execute(update(Job).where(*too_long).values(lease_until=func.now() + lease))
    expired = session.scalars(
        select(Job).where(Job.state == "running", Job.lease_until < func.now()).with_for_update(skip_locked=True)
    )
    for job in expired:
        if job.cancel_requested:
            job.state, job.lease_until, job.finished_at = "cancelled", None, session.scalar(select(func.now()))
            add_event(session, job.id, "info", f"cancelled: {job.worker}, which was to stop it, is gone")
        elif job.attempt >= max_attempts:
            job.state, job.lease_until, job.finished_at = "failed", None, session.scalar(select(func.now()))
            job.error = (
                f"its worker stopped without a word {counted(job.attempt, 'time')} (the last was {job.worker}); see "
                "that worker's log, then start a new job"
            )
            add_event(session, job.id, "error", f"failed: {job.error}")
            _emit_failed(session, job)
        else:
            job.state, job.lease_until, job.enqueued_at = "queued", None, None
            add_event(session, job.id, "warning", f"returned to the queue: the lease of {job.worker} ran out")
    session.flush()
    sent, lost = func.coalesce(Job.enqueued_at, Job.created_at), func.now() - timedelta(seconds=redeliver_after_seconds)
    is_lost = or_(sent < lost, sent > func.now() + FARTHEST_AHEAD)
    return list(session.scalars(select(Job.id).where(Job.state == "queued", is_lost).order_by(Job.seq)))


def add_event(
    session: Session, job_id: uuid.UUID, level: str, message: str, data: dict[str, Any] | None = None
) -> None:
    session.add(JobEvent(job_id=job_id, level=level, message=storable(message), data=data or {}))


def list_events(
    session: Session, job_id: uuid.UUID, *, after: int = 0, limit: int, newest: bool = False
) -> list[JobEvent]:
    """Oldest first: those after the event with the `seq` `after`; with `newest` the last of them."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after).limit(limit)
    found = session.scalars(query.order_by(JobEvent.seq.desc() if newest else JobEvent.seq)).all()
    return list(reversed(found)) if newest else list(found)


def _emit_failed(session: Session, job: Job) -> None:
    """Tell the project's webhooks of a job that has failed for good; what is tried again has not."""
    data = {
        "job": str(job.id),
        "kind": job.kind,
        "adapter": job.adapter.name if job.adapter else None,
        "task": task_named(job.params),
        "attempt": job.attempt,
        "error": job.error,
    }
    emit(session, job.project_id, "job.failed", data)


def _own(job_id: uuid.UUID, attempt: int) -> Any:
    return update(Job).where(Job.id == job_id, Job.attempt == attempt, Job.state == "running")
