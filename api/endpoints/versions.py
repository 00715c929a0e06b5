"""Versions after their training: lineage, comparison, tags, archiving and retention."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.http.deps import Admin, Promoter, Reader, ServicesDep
from api.http.pagination import Cursor, Page, PageLimit, decode_cursor, make_page
from api.http.schemas import Strict, VersionChangeOut
from api.http.values import Number
from registry.adapters import get_adapter
from registry.database import transaction
from registry.gates.side_by_side import ComparedVersion, compare_versions
from registry.gates.verdict import verdict
from registry.models import Version
from registry.retention.applying import remove_folders
from registry.retention.archiving import archive, unarchive
from registry.retention.policy import RetentionPlan, keep_last, plan_retention, purge, set_policy
from registry.versions.lineage import learned_deleted, version_lineage
from registry.versions.records import get_version, list_versions
from registry.versions.state import states_of
from registry.versions.tags import tag, tags_of, untag, version_changes

router = APIRouter(prefix="/v1/adapters/{name}", tags=["versions"])


class ReasonIn(Strict):
    reason: Annotated[str, Field(max_length=2000)] = ""


class RetentionIn(Strict):
    keep_last: Number


class PurgeIn(Strict):
    keep_last: Annotated[Number | None, Field(description="Default: the adapter's policy")] = None
    dry_run: bool = True
    reason: Annotated[str, Field(max_length=2000)] = "retention"


class VersionStateOut(BaseModel):
    number: int
    tags: list[str]
    archived_at: datetime | None
    withdrawn_at: datetime | None
    purged_at: datetime | None
    learned_deleted: bool
    """It, or an ancestor, was trained on data that was deleted since."""


class VersionHistory(BaseModel):
    data: list[VersionChangeOut]


class VersionLineageOut(BaseModel):
    adapter: str
    number: int
    ancestors: list[int]
    """Numbers from the first version to the parent."""
    children: list[int]
    replaces: int | None
    """The version in whose place it was trained, without deleted data."""
    job_id: uuid.UUID
    task: str
    dataset_hash: str
    dataset: dict[str, Any]
    trajectories: int
    replayed: int
    deleted: int
    learned_deleted: bool
    base_model: str
    base_revision: str
    code_version: str
    artifact_hash: str
    imported: dict[str, Any] | None
    """Origin, as the imported file describes it."""
    aliases: list[str]
    routes: list[int]
    exposures: int


class SideOut(BaseModel):
    number: int
    verdict: str
    reasons: list[str]
    scores: dict[str, float]
    suites: dict[str, int]
    config: dict[str, Any]
    data: dict[str, Any]
    losses: list[float]

    @classmethod
    def of(cls, side: ComparedVersion) -> "SideOut":
        return cls(
            number=side.version.number,
            verdict=verdict(side.gate),
            reasons=side.gate.reasons if side.gate else [],
            scores=side.scores,
            suites=side.suites,
            config=side.config,
            data=side.data,
            losses=side.losses,
        )


class ComparisonOut(BaseModel):
    left: SideOut
    right: SideOut
    changes: dict[str, float]
    """Score of the right version minus that of the left, by task."""
    different: dict[str, tuple[Any, Any]]
    """Settings and data that differ, left and right, by dotted name."""


class KeptOut(BaseModel):
    number: int
    reasons: list[str]


class RetentionOut(BaseModel):
    keep_last: int
    dry_run: bool
    kept: list[KeptOut]
    purged: list[int]

    @classmethod
    def of(cls, plan: RetentionPlan, *, dry_run: bool) -> "RetentionOut":
        return cls(
            keep_last=plan.keep_last,
            dry_run=dry_run,
            kept=[KeptOut(number=row.number, reasons=list(reasons)) for row, reasons in plan.kept],
            purged=[row.number for row in plan.purged],
        )


@router.get("/states")
def state_list(
    name: str, services: ServicesDep, caller: Reader, cursor: Cursor = None, limit: PageLimit = 50
) -> Page[VersionStateOut]:
    """Tags of every version, and whether it is archived, withdrawn or purged; oldest first."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name)
        rows = list_versions(session, adapter, after=decode_cursor(cursor), limit=limit + 1)
        found = states_of_versions(session, rows)
        return make_page(found, limit, seq=lambda row: row.number, render=lambda row: row)


@router.get("/standings", deprecated=True)
def standing_list(
    name: str, services: ServicesDep, caller: Reader, cursor: Cursor = None, limit: PageLimit = 50
) -> Page[VersionStateOut]:
    """The former name of `/states`."""
    return state_list(name, services, caller, cursor, limit)


@router.get("/comparison")
def comparison(
    name: str,
    left: Annotated[Number, Query()],
    right: Annotated[Number, Query()],
    services: ServicesDep,
    caller: Reader,
) -> ComparisonOut:
    """Two versions side by side: rows of R, settings, data, loss curves, verdicts."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name)
        found = compare_versions(session, get_version(session, adapter, left), get_version(session, adapter, right))
        return ComparisonOut(
            left=SideOut.of(found.left),
            right=SideOut.of(found.right),
            changes=found.changes,
            different=found.different,
        )


@router.get("/versions/{number}/lineage")
def lineage(name: str, number: Number, services: ServicesDep, caller: Reader) -> VersionLineageOut:
    """What a version was made from, and what was made from it."""
    with transaction(services.sessions) as session:
        version = get_version(session, get_adapter(session, caller.project_id, name), number)
        found = version_lineage(session, version)
        return VersionLineageOut(
            adapter=name,
            number=number,
            ancestors=list(found.ancestors),
            children=list(found.children),
            replaces=found.replaces.number if found.replaces else None,
            job_id=found.job.id,
            task=version.dataset.task.name,
            dataset_hash=version.dataset.content_hash,
            dataset=version.dataset.manifest,
            trajectories=found.trajectories,
            replayed=found.replayed,
            deleted=found.deleted,
            learned_deleted=found.learned_deleted,
            base_model=version.base_model,
            base_revision=version.base_revision,
            code_version=version.code_version,
            artifact_hash=version.artifact_hash,
            imported=found.imported.origin if found.imported else None,
            aliases=list(found.serving.aliases),
            routes=list(found.serving.routes),
            exposures=found.serving.exposures,
        )


@router.get("/versions/{number}/history")
def history(name: str, number: Number, services: ServicesDep, caller: Reader) -> VersionHistory:
    """Who tagged, archived, withdrew, purged, restored, exported or imported it, oldest first."""
    with transaction(services.sessions) as session:
        version = get_version(session, get_adapter(session, caller.project_id, name), number)
        return VersionHistory(data=[VersionChangeOut.of(row) for row in version_changes(session, version)])


@router.put("/versions/{number}/tags/{label}")
def add_tag(name: str, number: Number, label: str, services: ServicesDep, caller: Promoter) -> VersionStateOut:
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name)
        version = get_version(session, adapter, number)
        tag(session, version, label, actor=caller.actor)
        return states_of_versions(session, [version])[0]


@router.delete("/versions/{number}/tags/{label}")
def remove_tag(name: str, number: Number, label: str, services: ServicesDep, caller: Promoter) -> VersionStateOut:
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name)
        version = get_version(session, adapter, number)
        untag(session, version, label, actor=caller.actor)
        return states_of_versions(session, [version])[0]


@router.post("/versions/{number}/archive")
def put_away(name: str, number: Number, body: ReasonIn, services: ServicesDep, caller: Promoter) -> VersionStateOut:
    """Hide a version; 409 while an alias, the live route, a child or a job refers to it."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name, lock=True)
        version = get_version(session, adapter, number)
        archive(session, adapter, version, actor=caller.actor, reason=body.reason)
        return states_of_versions(session, [version])[0]


@router.post("/versions/{number}/unarchive")
def take_out(name: str, number: Number, body: ReasonIn, services: ServicesDep, caller: Promoter) -> VersionStateOut:
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name, lock=True)
        version = get_version(session, adapter, number)
        unarchive(session, version, actor=caller.actor, reason=body.reason)
        return states_of_versions(session, [version])[0]


@router.get("/retention")
def retention(name: str, services: ServicesDep, caller: Reader) -> RetentionOut:
    """The adapter's policy, and what it would remove now."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name)
        kept = keep_last(session, adapter, services.settings.retention_keep_last)
        return RetentionOut.of(plan_retention(session, adapter, kept), dry_run=True)


@router.put("/retention")
def change_retention(name: str, body: RetentionIn, services: ServicesDep, caller: Admin) -> RetentionOut:
    """Set the adapter's policy. Nothing is removed before it is applied."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name, lock=True)
        set_policy(session, adapter, body.keep_last, actor=caller.actor)
        return RetentionOut.of(plan_retention(session, adapter, body.keep_last), dry_run=True)


@router.post("/retention/runs")
def apply_retention(name: str, body: PurgeIn, services: ServicesDep, caller: Admin) -> RetentionOut:
    """Remove the bytes of versions that nothing refers to. By default a dry run."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name, lock=True)
        kept = body.keep_last
        if kept is None:
            kept = keep_last(session, adapter, services.settings.retention_keep_last)
        plan = plan_retention(session, adapter, kept)
        out = RetentionOut.of(plan, dry_run=body.dry_run)
        folders = []
        if not body.dry_run:
            folders = purge(session, adapter, plan.purged, actor=caller.actor, reason=body.reason)
    remove_folders(services.sessions, services.store, folders)
    return out


def states_of_versions(session: Session, rows: list[Version]) -> list[VersionStateOut]:
    ids = [row.id for row in rows]
    tags, states = tags_of(session, ids), states_of(session, ids)
    tainted = learned_deleted(session, rows)
    return [
        VersionStateOut(
            number=row.number,
            tags=tags.get(row.id, []),
            archived_at=states[row.id].archived_at if row.id in states else None,
            withdrawn_at=states[row.id].withdrawn_at if row.id in states else None,
            purged_at=states[row.id].purged_at if row.id in states else None,
            learned_deleted=row.id in tainted,
        )
        for row in rows
    ]
