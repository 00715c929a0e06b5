"""Versions: immutable trained memories of an adapter, with their lineage."""

import uuid
from collections.abc import Collection, Iterable
from typing import Any, Literal

from sqlalchemy import CTE, Integer, cast, func, null, select, true, union_all
from sqlalchemy.orm import Session, joinedload

from registry.errors import Invalid, VersionNotFound
from registry.models import (
    Adapter,
    Alias,
    Dataset,
    Gate,
    Job,
    Task,
    Version,
    VersionImport,
    VersionImportTask,
    VersionStanding,
)

Verdict = Literal["unchecked", "waiting", "passed", "rejected"]
"""`waiting` for a person's yes, where the gate's policy asks for one."""


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
        report=report,
    )
    session.add(version)
    session.flush()
    return version


def version_of_job(session: Session, job_id: uuid.UUID) -> Version | None:
    return session.scalars(select(Version).where(Version.job_id == job_id)).one_or_none()


def versions_of_jobs(session: Session, job_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Version]:
    """By job; without those that registered none."""
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
    """Those numbered above `after`, oldest first."""
    return list(
        session.scalars(
            select(Version)
            .where(Version.adapter_id == adapter.id, Version.number > after)
            .options(joinedload(Version.dataset).joinedload(Dataset.task), joinedload(Version.parent))
            .order_by(Version.number)
            .limit(limit)
        )
    )


def champion(session: Session, adapter: Adapter) -> Version | None:
    return session.scalars(
        select(Version)
        .join(Alias, Alias.version_id == Version.id)
        .where(Alias.adapter_id == adapter.id, Alias.name == "champion")
    ).one_or_none()


def learned_tasks(session: Session, version: Version | None) -> list[Task]:
    """The tasks of a version's lineage in the order they were first learned; empty for the bare base."""
    return tasks_by_version(session, [version])[version.id] if version else []


def tasks_by_version(session: Session, versions: Collection[Version]) -> dict[uuid.UUID, list[Task]]:
    """What `learned_tasks` says of each: one query, however many they are and however long their lines."""
    lines = _lines(version.id for version in versions)
    own = select(lines, cast(null(), Integer).label("place"), Dataset.task_id)
    imported = select(lines, VersionImportTask.place, VersionImportTask.task_id)
    taught = union_all(
        own.join(Dataset, Dataset.id == lines.c.dataset_id),
        imported.join(VersionImportTask, VersionImportTask.version_id == lines.c.id),
    ).subquery()
    rows = session.execute(
        select(taught.c.id, taught.c.parent_id, Task)
        .join(Task, Task.id == taught.c.task_id)
        # A parent has a smaller number, so that what it learned is known when its children are reached.
        .order_by(taught.c.number, taught.c.id, taught.c.place.nulls_last())
    )
    found: dict[uuid.UUID, dict[uuid.UUID, Task]] = {}
    for version_id, parent_id, task in rows:
        if version_id not in found:
            found[version_id] = dict(found.get(parent_id, {}))
        found[version_id].setdefault(task.id, task)
    return {version.id: list(found[version.id].values()) for version in versions}


def lineage(session: Session, version: Version | None) -> list[Version]:
    """From the first ancestor to the version itself; empty for the bare base."""
    if version is None:
        return []
    lines = _lines([version.id])
    query = select(Version).join(lines, lines.c.id == Version.id)
    loaded = query.options(joinedload(Version.dataset).joinedload(Dataset.task))
    return list(session.scalars(loaded.order_by(Version.number)))


def _lines(version_ids: Iterable[uuid.UUID]) -> CTE:
    """The versions and all their ancestors, once each."""
    columns = Version.id, Version.parent_id, Version.number, Version.dataset_id
    lines = select(*columns).where(Version.id.in_(list(version_ids))).cte("lines", recursive=True)
    return lines.union(select(*columns).join(lines, lines.c.parent_id == Version.id))


def gate_of(session: Session, version: Version) -> Gate | None:
    return session.scalars(select(Gate).where(Gate.version_id == version.id)).one_or_none()


def gates_of(session: Session, versions: Collection[Version]) -> dict[uuid.UUID, Gate]:
    """By version, with the champions that they were compared with; what was not judged yet is left out."""
    query = select(Gate).where(Gate.version_id.in_([version.id for version in versions]))
    return {gate.version_id: gate for gate in session.scalars(query.options(joinedload(Gate.champion)))}


def verdict(gate: Gate | None) -> Verdict:
    """Of the gate and, where its policy is `manual`, of the person who was asked."""
    if gate is None:
        return "unchecked"
    if gate.decision is not None:
        return "passed" if gate.decision.approved else "rejected"
    if gate.passed and gate.policy == "manual":
        return "waiting"
    return "passed" if gate.passed else "rejected"


def artifact_key(project_id: uuid.UUID, artifact_hash: str) -> str:
    """Folder of an artifact in the object store."""
    return f"projects/{project_id}/artifacts/{artifact_hash}"


def artifact_beside(key: str, artifact_hash: str) -> str:
    """Folder of another artifact of the same project, which the one in folder `key` refers to by hash."""
    return f"{key.rpartition('/')[0]}/{artifact_hash}"


def artifact_folders(session: Session, versions: Collection[Version]) -> set[str]:
    """Of the versions' own artifacts, and of the parts that came with imported ones (`registry.exports`)."""
    imported = select(VersionImport).where(VersionImport.version_id.in_([version.id for version in versions]))
    parts = {row.version_id: row.origin.get("parts", {}) for row in session.scalars(imported)}
    return {version.artifact_key for version in versions} | {
        artifact_beside(version.artifact_key, part)
        for version in versions
        for part in parts.get(version.id, {}).values()
    }


def kept_artifacts(session: Session, folders: Collection[str]) -> set[str]:
    """Those of the folders that `artifact_folders` has for any version whose bytes retention has not removed."""
    kept = Version.id.not_in(select(VersionStanding.version_id).where(VersionStanding.purged_at.is_not(None)))
    own = session.scalars(select(Version.artifact_key).where(Version.artifact_key.in_(folders), kept))
    part = func.jsonb_each_text(VersionImport.origin["parts"]).table_valued("key", "value")
    beside = session.execute(
        select(Version.artifact_key, part.c.value)
        .join(VersionImport, VersionImport.version_id == Version.id)
        .join(part, true())
        .where(part.c.value.in_({folder.rpartition("/")[2] for folder in folders}), kept)
    )
    return set(own) | {found for key, hash_ in beside if (found := artifact_beside(key, hash_)) in folders}
