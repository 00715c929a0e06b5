"""Jobs: start, watch, cancel."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import anyio
import structlog
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from redis.exceptions import RedisError
from sqlalchemy.orm import Session

from api.deps import Reader, ServicesDep, Trainer
from api.idempotency import IdempotencyKey, once
from api.pagination import decode_cursor, encode_cursor
from api.schemas import JobEventOut, JobOut, Strict
from memgen.config import TrainingConfig
from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import Invalid
from registry.keys import Principal
from registry.models import Adapter
from registry.tasks import get_task
from registry.versions import champion, get_version
from registry.wiring import Services
from workers.queue import enqueue

log = structlog.get_logger()
router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class JobIn(Strict):
    kind: Literal["train_weaver", "evaluate"]
    adapter: str
    task: Annotated[str | None, Field(description="train_weaver: the task to learn")] = None
    version: Annotated[int | None, Field(description="evaluate: which version")] = None
    parent: Annotated[
        int | None, Field(description="train_weaver: version to go on from, 0 for none; default: the champion")
    ] = None
    training: Annotated[dict[str, Any], Field(default_factory=dict, description="Fields of TrainingConfig: steps, ...")]
    min_reward: Annotated[float, Field(description="Trajectories with a lower reward are not trained on")] = 0.5
    promote: Annotated[bool, Field(description="Move `champion` to the version if it passes its gate")] = True


class JobList(BaseModel):
    data: list[JobOut]
    next_cursor: str | None


class JobEventList(BaseModel):
    data: list[JobEventOut]


@router.post("", status_code=202)
def create(
    body: JobIn, request: Request, services: ServicesDep, caller: Trainer, idempotency_key: IdempotencyKey = None
) -> JobOut:
    """Queue a job. It is sent to the workers after the commit; if the broker is down, the reaper sends it later."""
    with transaction(services.sessions) as session:
        out = once(
            session,
            caller.project_id,
            idempotency_key,
            body,
            JobOut,
            lambda: _create(session, caller, body),
        )
    _send(request, services, out.id)
    return out


@router.get("")
def index(
    services: ServicesDep,
    caller: Reader,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
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
    after: Annotated[int, Query(ge=0, description="`seq` of the last event already seen")] = 0,
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
    job_id: uuid.UUID, request: Request, services: ServicesDep, caller: Reader, after: Annotated[int, Query(ge=0)] = 0
) -> StreamingResponse:
    """Server-sent events: `event` for each job event, `job` whenever its state or progress changed, until it ends."""
    await run_in_threadpool(_read, services, caller, job_id, after)
    last_seen = int(request.headers.get("Last-Event-ID") or after)
    return StreamingResponse(_follow(services, caller, job_id, last_seen), media_type="text/event-stream")


async def _follow(services: Services, caller: Principal, job_id: uuid.UUID, after: int) -> AsyncIterator[str]:
    shown = None
    while True:
        job, new = await run_in_threadpool(_read, services, caller, job_id, after)
        for event in new:
            after = event.seq
            yield f"id: {event.seq}\nevent: event\ndata: {event.model_dump_json()}\n\n"
        if job != shown:
            shown = job
            yield f"event: job\ndata: {job.model_dump_json()}\n\n"
        if job.state not in jobs.LIVE and not new:
            return
        await anyio.sleep(0.5)


def _read(services: Services, caller: Principal, job_id: uuid.UUID, after: int) -> tuple[JobOut, list[JobEventOut]]:
    with transaction(services.sessions) as session:
        job = JobOut.of(jobs.get_job(session, caller.project_id, job_id))
        return job, [JobEventOut.of(row) for row in jobs.list_events(session, job_id, after=after, limit=500)]


def _create(session: Session, caller: Principal, body: JobIn) -> JobOut:
    adapter = get_adapter(session, caller.project_id, body.adapter)
    if body.kind == "train_weaver":
        params = _training_params(session, caller, adapter, body)
    else:
        if body.version is None:
            raise Invalid("an evaluate job needs `version`, the number of the version to evaluate")
        params = {"version": get_version(session, adapter, body.version).number}
    return JobOut.of(jobs.create_job(session, caller.project_id, body.kind, params, adapter))


def _training_params(session: Session, caller: Principal, adapter: Adapter, body: JobIn) -> dict[str, Any]:
    """Everything is decided now, so that the job means the same whenever it runs."""
    if body.task is None:
        raise Invalid("a train_weaver job needs `task`, the name of the task to learn")
    task = get_task(session, caller.project_id, body.task)
    config = TrainingConfig.from_mapping(body.training)
    if body.parent is None:
        best = champion(session, adapter)
        parent = best.number if best else None
    else:
        parent = get_version(session, adapter, body.parent).number if body.parent else None
    return {
        "task": task.name,
        "parent": parent,
        "training": json.loads(json.dumps(config.to_mapping())),
        "min_reward": body.min_reward,
        "promote": body.promote,
    }


def _send(request: Request, services: Services, job_id: uuid.UUID) -> None:
    try:
        enqueue(request.app.state.queue, job_id)
    except (RedisError, OSError) as error:
        log.warning("the broker did not take the job; the reaper will send it", job=str(job_id), error=str(error))
        return
    with transaction(services.sessions) as session:
        jobs.mark_enqueued(session, job_id)
