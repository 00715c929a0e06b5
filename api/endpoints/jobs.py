"""Jobs: start, watch, cancel."""

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.endpoints.job_bodies import JobIn, job_request
from api.http.database_errors import domain_error
from api.http.deps import Reader, ServicesDep, Trainer
from api.http.drain import Drain
from api.http.idempotency import IdempotencyDep, once
from api.http.pagination import Cursor, PageLimit, decode_cursor, encode_cursor
from api.http.schemas import JobEventOut, JobOut
from api.http.values import SequenceNumber
from registry import jobs
from registry.database import transaction
from registry.errors import DatabaseUnavailable
from registry.job_events import newest_events
from registry.keys import Principal
from registry.models import Job, JobEvent
from registry.wiring import Services
from workers.queue import send_jobs

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_LOOK_SECONDS, _AWAY_SECONDS = 0.5, 1.0
"""Between two looks at a job that is followed; and at a database that does not answer."""


class JobList(BaseModel):
    data: list[JobOut]
    next_cursor: str | None


class JobEventList(BaseModel):
    data: list[JobEventOut]


@router.post("", status_code=202)
def create(
    body: JobIn, request: Request, services: ServicesDep, caller: Trainer, idempotency: IdempotencyDep
) -> JobOut:
    """Queue a job. It is sent to the workers after the commit.

    If the broker is down, the job is kept, `waits_for_broker` says so, and the reaper sends it later.
    """
    with transaction(services.sessions) as session:
        out = once(
            session,
            caller.project_id,
            idempotency,
            body,
            JobOut,
            lambda: _create(session, services, caller, body),
        )
    return out.model_copy(update={"waits_for_broker": not send_job(request, services, out.id)})


@router.get("")
def index(
    services: ServicesDep,
    caller: Reader,
    cursor: Cursor = None,
    limit: PageLimit = 50,
) -> JobList:
    """Newest first."""
    before = decode_cursor(cursor) if cursor else None
    with transaction(services.sessions) as session:
        rows = jobs.list_jobs(session, caller.project_id, before=before, limit=limit)
        following = encode_cursor(rows[-1].seq) if len(rows) == limit else None
        return JobList(data=[JobOut.of(row) for row in rows], next_cursor=following)


@router.get("/{job_id}")
def show(job_id: uuid.UUID, services: ServicesDep, caller: Reader) -> JobOut:
    with transaction(services.sessions) as session:
        return JobOut.of(jobs.get_job(session, caller.project_id, job_id))


@router.post("/{job_id}/cancel")
def cancel(job_id: uuid.UUID, services: ServicesDep, caller: Trainer) -> JobOut:
    """A queued job ends at once, a running one within seconds, keeping its checkpoint."""
    with transaction(services.sessions) as session:
        return JobOut.of(jobs.request_cancel(session, caller.project_id, job_id))


@router.get("/{job_id}/events")
def events(
    job_id: uuid.UUID,
    services: ServicesDep,
    caller: Reader,
    after: Annotated[SequenceNumber, Query(description="`seq` of the last event already seen")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> JobEventList:
    """Oldest first."""
    with transaction(services.sessions) as session:
        jobs.get_job(session, caller.project_id, job_id)
        return JobEventList(
            data=[JobEventOut.of(row) for row in jobs.list_events(session, job_id, after=after, limit=limit)]
        )


@router.get("/{job_id}/stream", response_class=StreamingResponse)
async def stream(
    job_id: uuid.UUID,
    request: Request,
    services: ServicesDep,
    caller: Reader,
    after: Annotated[SequenceNumber, Query()] = 0,
    last_event_id: Annotated[SequenceNumber | None, Header(description="Goes before `after`")] = None,
) -> StreamingResponse:
    """Server-sent events: `event` for each job event, `job` whenever its state or progress changed, until it ends.

    A process that stops ends it early; ask again with the last event's id.
    """
    last_seen = after if last_event_id is None else last_event_id
    first = await run_in_threadpool(_look, services, caller, job_id, last_seen)
    following = follow(services, caller, first, request.app.state.drain)
    return StreamingResponse(_written(following), media_type="text/event-stream")


@dataclass(frozen=True)
class JobNews:
    """A job as it is, and its events since the last look at it, oldest first."""

    job: JobOut
    events: list[JobEventOut]
    seen: int
    """`seq` of the newest event that was seen; 0 if there was none."""


def look_back(services: Services, caller: Principal, job_id: uuid.UUID, *, most: int) -> JobNews:
    """The job and its last `most` events. Raises JobNotFound."""
    with transaction(services.sessions) as session:
        job = jobs.get_job(session, caller.project_id, job_id)
        return _news(job, jobs.list_events(session, job_id, limit=most, newest=True), 0)


@dataclass(frozen=True)
class JobInDetail:
    """A job with its last events, and the data of more of them, of which curves are made."""

    job: JobOut
    events: list[JobEventOut]
    data: list[dict[str, Any]]
    """What those events, and more before them, say beside their text; oldest first."""


def look_closely(services: Services, caller: Principal, job_id: uuid.UUID, *, most: int, listed: int) -> JobInDetail:
    """The job, the data of its last `most` events, and the last `listed` of these. Raises JobNotFound."""
    with transaction(services.sessions) as session:
        job = JobOut.of(jobs.get_job(session, caller.project_id, job_id))
        rows = newest_events(session, job_id, most=most)
    last = [
        JobEventOut(seq=seq, at=at, level=level, message=message, data=data)
        for seq, at, level, message, data in rows[-listed:]
    ]
    return JobInDetail(job, last, [data for *_, data in rows])


async def follow(services: Services, caller: Principal, first: JobNews, drain: Drain) -> AsyncIterator[JobNews | None]:
    """What is new of a job, from the `first` look on, whenever something is, until it has ended or the process stops;
    None while the database does not answer."""
    job_id, seen = first.job.id, first.seen
    shown: JobOut | None = None
    news: JobNews | None = first
    while not drain.is_closed:
        if news is None:
            yield None
            await anyio.sleep(_AWAY_SECONDS)
        else:
            if news.events or news.job != shown:
                yield news
            if news.job.state not in jobs.LIVE and not news.events:
                return
            seen, shown = news.seen, news.job
            await anyio.sleep(_LOOK_SECONDS)
        news = await run_in_threadpool(_look_if_there, services, caller, job_id, seen)


async def _written(following: AsyncIterator[JobNews | None]) -> AsyncIterator[str]:
    """As server-sent events."""
    shown = None
    async for news in following:
        if news is None:
            yield ": the database does not answer; the events go on when it is back\n\n"
            continue
        for event in news.events:
            yield f"id: {event.seq}\nevent: event\ndata: {event.model_dump_json()}\n\n"
        if news.job != shown:
            shown = news.job
            yield f"event: job\ndata: {news.job.model_dump_json()}\n\n"


def _look(services: Services, caller: Principal, job_id: uuid.UUID, after: int) -> JobNews:
    with transaction(services.sessions) as session:
        job = jobs.get_job(session, caller.project_id, job_id)
        return _news(job, jobs.list_events(session, job_id, after=after, limit=500), after)


def _look_if_there(services: Services, caller: Principal, job_id: uuid.UUID, after: int) -> JobNews | None:
    try:
        return _look(services, caller, job_id, after)
    except SQLAlchemyError as error:
        if not isinstance(domain_error(error), DatabaseUnavailable):
            raise
        return None


def _news(job: Job, events: Sequence[JobEvent], seen: int) -> JobNews:
    return JobNews(JobOut.of(job), [JobEventOut.of(row) for row in events], events[-1].seq if events else seen)


def _create(session: Session, services: Services, caller: Principal, body: JobIn) -> JobOut:
    adapter, request = job_request(session, caller, body, services.settings)
    return JobOut.of(jobs.create_job(session, caller.project_id, request, adapter))


def send_job(request: Request, services: Services, job_id: uuid.UUID) -> bool:
    """After the job's transaction has committed. False if the broker is down: then the reaper sends it later."""
    return not send_jobs(request.app.state.queue, services.sessions, [job_id])
