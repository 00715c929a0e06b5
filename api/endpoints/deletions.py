"""Deleting data for good, where a trajectory went, and garbage in the object store."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.http.deps import Admin, Reader, ServicesDep
from api.http.pagination import Cursor, Page, PageLimit, decode_cursor, make_page
from api.http.schemas import Strict
from api.http.values import Number
from registry.clock import utc_now
from registry.database import may_pass, transaction
from registry.deletion.deletions import check_policy, delete_data, get_deletion, list_brief, list_deletions
from registry.deletion.erasure import finish_erasure, unfinished_erasures
from registry.deletion.retraining import list_retrainings, step_state, why_stopped
from registry.deletion.scope import DeletionSubject, find_affected
from registry.errors import StoreUnavailable
from registry.keys import Principal
from registry.models import Deletion, Retraining, Version
from registry.retention.garbage import collect_garbage, find_garbage
from registry.scratch import sweep
from registry.trajectories.records import get_trajectory
from registry.versions.lineage import trajectory_lineage
from registry.versions.records import versions_of_jobs
from registry.wiring import Services
from workers.queue import send_jobs

router = APIRouter(prefix="/v1", tags=["data"])

MOST_LISTED = 100
"""Entries of each list of a dry run."""


class DeletionIn(Strict):
    scope: Literal["trajectory", "session", "user"]
    # Of any length, as metadata.user is.
    id: Annotated[str, Field(min_length=1, description="`user` is the trajectories' metadata.user")]
    policy: Annotated[
        Literal["keep", "retrain", "withdraw"], Field(description="Of versions that learned the data")
    ] = "keep"
    reason: Annotated[str, Field(max_length=2000)] = ""
    dry_run: Annotated[bool, Field(description="Only say what would be affected")] = True
    expected: Annotated[
        Number | None, Field(description="Trajectories in the dry run; 409 if they are not as many")
    ] = None


class RetrainingOut(BaseModel):
    """One version that is trained anew without the data; the steps of a chain run one after another."""

    chain: int
    line: Annotated[int, Field(deprecated=True, description="The former name of `chain`")]
    adapter: str
    task: str
    replaces: int
    """Number of the version in whose place the new one is trained."""
    job: uuid.UUID | None
    state: str
    """The job's state; before there is a job `waiting` for the step before, or `stopped`."""
    version: int | None
    """Number of the new version, which its gate judges like any other."""
    stopped: str | None
    """Why the chain ended here."""

    @classmethod
    def of(cls, row: Retraining, version: Version | None) -> "RetrainingOut":
        return cls(
            chain=row.chain,
            line=row.chain,
            adapter=row.adapter.name,
            task=row.task.name,
            replaces=row.replaces.number,
            job=row.job_id,
            state=step_state(row),
            version=version.number if version else None,
            stopped=why_stopped(row),
        )


class DeletionOut(BaseModel):
    id: uuid.UUID | None
    """Id of the deletion; null for a dry run."""
    scope: str
    policy: str
    actor: str
    reason: str
    affected: dict[str, Any]
    """How much holds the data or learned it. A dry run lists at most 100 suites, datasets, jobs and versions, of these
    first those that serve; `counts` says how many there are of each."""
    trajectories: list[dict[str, str]]
    """Ids and content hashes of what is gone."""
    bytes_gone: bool
    """Whether the object store holds no copy any more; if not, the beat goes on."""
    created_at: datetime
    retrainings: list[RetrainingOut]
    jobs_waiting_for_broker: list[uuid.UUID] = Field(
        default=[], description="Started by this request while the broker was down; sent when it is back"
    )

    @classmethod
    def of(cls, row: Deletion, steps: list[RetrainingOut], *, bytes_gone: bool) -> "DeletionOut":
        return cls(
            id=row.id,
            scope=row.scope,
            policy=row.policy,
            actor=row.actor,
            reason=row.reason,
            affected=row.affected,
            trajectories=row.trajectories,
            bytes_gone=bytes_gone,
            created_at=row.created_at,
            retrainings=steps,
        )


class GarbageIn(Strict):
    dry_run: bool = True


class GarbageOut(BaseModel):
    dry_run: bool
    objects: list[str]
    bytes: int
    folders: list[str]
    """Folders of processes of the API's machine that were killed and left files behind."""


class TrajectoryLineageOut(BaseModel):
    id: uuid.UUID
    task: str
    held_out: bool
    suites: list[str]
    """`task#number`"""
    datasets: list[dict[str, Any]]
    """With the `reward` that it had in each."""
    jobs: list[uuid.UUID]
    versions: list[dict[str, Any]]
    """Versions that learned from it, with the aliases and live routes that serve them and their number of answers."""


@router.post("/deletions")
def delete(body: DeletionIn, request: Request, services: ServicesDep, caller: Admin) -> DeletionOut:
    """Delete a trajectory, or all of a session or a user, for good. By default a dry run.

    Rows and texts go at once, bytes in the object store right after; what can't be removed yet, the beat removes.
    """
    subject = DeletionSubject(body.scope, body.id)
    if body.dry_run:
        with transaction(services.sessions) as session:
            affected = find_affected(session, caller.project_id, subject)
            check_policy(affected, body.policy)
            return DeletionOut(
                id=None,
                scope=body.scope,
                policy=body.policy,
                actor=caller.actor,
                reason=body.reason,
                affected=affected.describe(session, most=MOST_LISTED),
                trajectories=[{"id": str(id_), "content_hash": content} for id_, content in affected.trajectories],
                bytes_gone=False,
                created_at=utc_now(),
                retrainings=[],
            )
    with transaction(services.sessions) as session:
        deleted = delete_data(
            session,
            caller.project_id,
            subject,
            body.policy,
            actor=caller.actor,
            reason=body.reason,
            expected=body.expected,
        )
    unsent = send_jobs(request.app.state.queue, services.sessions, deleted.started)
    try:
        gone = finish_erasure(services.sessions, services.store, deleted.deletion.id)
    except Exception as error:  # the beat goes on with it
        if not isinstance(error, StoreUnavailable) and not may_pass(error):
            raise
        gone = False
    with transaction(services.sessions) as session:
        [steps] = _retrainings(session, [deleted.deletion]).values()
    out = DeletionOut.of(deleted.deletion, steps, bytes_gone=gone)
    return out.model_copy(update={"jobs_waiting_for_broker": unsent})


@router.get("/deletions")
def deletions(services: ServicesDep, caller: Admin, cursor: Cursor = None, limit: PageLimit = 50) -> Page[DeletionOut]:
    """Newest first."""
    with transaction(services.sessions) as session:
        rows = list_deletions(session, caller.project_id, before=decode_cursor(cursor) or None, limit=limit + 1)
        waiting, steps = set(unfinished_erasures(session)), _retrainings(session, rows)
        return make_page(
            rows,
            limit,
            seq=lambda row: row.seq,
            render=lambda row: DeletionOut.of(row, steps[row.id], bytes_gone=row.id not in waiting),
        )


@dataclass(frozen=True)
class DeletionInList:
    """What a list says of a deletion."""

    id: uuid.UUID
    scope: str
    policy: str
    actor: str
    reason: str
    trajectories: int
    bytes_gone: bool
    created_at: datetime
    retrainings: Sequence[RetrainingOut]


def brief_deletions(services: Services, caller: Principal, *, cursor: str | None, limit: int) -> Page[DeletionInList]:
    """Newest first."""
    with transaction(services.sessions) as session:
        rows = list_brief(session, caller.project_id, before=decode_cursor(cursor) or None, limit=limit + 1)
        waiting, steps = set(unfinished_erasures(session)), _retrainings(session, [row for row, _ in rows])

    def shown(pair: tuple[Deletion, int]) -> DeletionInList:
        row, trajectories = pair
        same = {name: getattr(row, name) for name in ("id", "scope", "policy", "actor", "reason", "created_at")}
        return DeletionInList(
            **same, trajectories=trajectories, bytes_gone=row.id not in waiting, retrainings=steps[row.id]
        )

    return make_page(rows, limit, seq=lambda pair: pair[0].seq, render=shown)


@router.get("/deletions/{deletion_id}")
def show_deletion(deletion_id: uuid.UUID, services: ServicesDep, caller: Admin) -> DeletionOut:
    with transaction(services.sessions) as session:
        row = get_deletion(session, caller.project_id, deletion_id)
        [steps] = _retrainings(session, [row]).values()
        return DeletionOut.of(row, steps, bytes_gone=row.id not in unfinished_erasures(session))


def _retrainings(session: Session, rows: Sequence[Deletion]) -> dict[uuid.UUID, list[RetrainingOut]]:
    """Steps of retraining, by deletion."""
    found = list_retrainings(session, [row.id for row in rows])
    made = versions_of_jobs(session, [step.job_id for steps in found.values() for step in steps if step.job_id])
    return {
        deletion_id: [RetrainingOut.of(step, made.get(step.job_id) if step.job_id else None) for step in steps]
        for deletion_id, steps in found.items()
    }


@router.get("/trajectories/{trajectory}/lineage")
def lineage(trajectory: uuid.UUID, services: ServicesDep, caller: Reader) -> TrajectoryLineageOut:
    """Where a trajectory went: datasets, jobs, versions, and what serves them."""
    with transaction(services.sessions) as session:
        found = trajectory_lineage(session, get_trajectory(session, caller.project_id, trajectory))
        return TrajectoryLineageOut(
            id=found.trajectory.id,
            task=found.trajectory.task.name,
            held_out=found.trajectory.held_out,
            suites=[f"{suite.task.name}#{suite.number}" for suite in found.suites],
            datasets=[
                {"hash": row.content_hash, "task": row.task.name, "reward": found.rewards.get(row.id)}
                for row in found.datasets
            ],
            jobs=list(found.jobs),
            versions=[
                {
                    "adapter": version.adapter.name,
                    "number": version.number,
                    "direct": version.dataset_id in {row.id for row in found.datasets},
                    "aliases": list(found.serving[version.id].aliases),
                    "routes": list(found.serving[version.id].routes),
                    "exposures": found.serving[version.id].exposures,
                }
                for version in found.versions
            ],
        )


@router.post("/garbage")
def garbage(body: GarbageIn, services: ServicesDep, caller: Admin) -> GarbageOut:
    """Remove objects that no row names and that are older than the grace period, and on this machine what processes
    left behind that were killed. By default a dry run."""
    grace = timedelta(hours=services.settings.garbage_grace_hours)
    act = find_garbage if body.dry_run else collect_garbage
    found = act(services.sessions, services.store, caller.project_id, now=utc_now(), grace=grace)
    folders = sweep(services.settings.scratch_dir, dry_run=body.dry_run)
    return GarbageOut(
        dry_run=body.dry_run,
        objects=[row.key for row in found],
        bytes=sum(row.size for row in found),
        folders=[folder.name for folder in folders],
    )
