"""Versions: immutable trained memories of an adapter, numbered in the order of their registration."""

import uuid
from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, joinedload

from registry.errors import Invalid, VersionNotFound
from registry.job_requests import read_request
from registry.models import Adapter, Dataset, Job, Task, Version


def register_version(
    session: Session,
    job: Job,
    adapter: Adapter,
    *,
    parent_id: uuid.UUID | None,
    artifact_key: str,
    artifact_hash: str,
    code_version: str,
    report: dict[str, Any],
) -> Version:
    """The version that `job` trained, numbered next in its adapter. A job registers one version at most.

    The caller holds the adapter's lock and has stored the artifact's bytes.
    """
    known = version_of_job(session, job.id)
    if known is not None:
        return known
    if job.dataset_id is None:
        raise Invalid(f"job {job.id} has no dataset; a version can't be registered without its lineage")
    newest = session.scalar(select(func.coalesce(func.max(Version.number), 0)).where(Version.adapter_id == adapter.id))
    version = Version(
        adapter_id=adapter.id,
        number=(newest or 0) + 1,
        parent_id=parent_id,
        dataset_id=job.dataset_id,
        job_id=job.id,
        base_model=adapter.base_model,
        base_revision=adapter.base_revision,
        code_version=code_version,
        artifact_key=artifact_key,
        artifact_hash=artifact_hash,
        form=getattr(read_request(job.kind, job.params), "form", None) or form_of(adapter),
        report=report,
    )
    session.add(version)
    session.flush()
    return version


def form_of(adapter: Adapter) -> str:
    """The form that the adapter's versions have unless their training asked for another."""
    return str(adapter.memory.get("form", "cache"))


def version_of_job(session: Session, job_id: uuid.UUID) -> Version | None:
    return session.scalars(select(Version).where(Version.job_id == job_id)).one_or_none()


def versions_of_jobs(session: Session, job_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Version]:
    """The version of each job, by job id; jobs that registered none are left out."""
    query = select(Version).where(Version.job_id.in_(job_ids))
    return {version.job_id: version for version in session.scalars(query)}


def get_version(session: Session, adapter: Adapter, number: int) -> Version:
    """Raises VersionNotFound."""
    found = session.scalars(
        select(Version).where(Version.adapter_id == adapter.id, Version.number == number)
    ).one_or_none()
    if found is None:
        raise VersionNotFound(f"adapter {adapter.name!r} has no version {number}")
    return found


def list_versions(session: Session, adapter: Adapter, *, after: int = 0, limit: int | None = None) -> list[Version]:
    """The versions numbered above `after`, oldest first."""
    query = _versions(adapter).where(Version.number > after)
    return list(session.scalars(query.order_by(Version.number).limit(limit)))


def newest_versions(session: Session, adapter: Adapter, *, before: int | None = None, limit: int) -> list[Version]:
    """The versions numbered below `before`, newest first."""
    query = _versions(adapter)
    if before is not None:
        query = query.where(Version.number < before)
    return list(session.scalars(query.order_by(Version.number.desc()).limit(limit)))


def versions_of_task(session: Session, task: Task, limit: int) -> list[Version]:
    """The versions whose training learned the task, newest first; not those that replayed it, or go on from them."""
    query = select(Version).join(Dataset, Dataset.id == Version.dataset_id).where(Dataset.task_id == task.id)
    return list(
        session.scalars(
            query.options(joinedload(Version.adapter)).order_by(Version.created_at.desc(), Version.id).limit(limit)
        )
    )


def _versions(adapter: Adapter) -> Select[Version]:
    loaded = joinedload(Version.dataset).joinedload(Dataset.task), joinedload(Version.parent)
    return select(Version).where(Version.adapter_id == adapter.id).options(*loaded)
