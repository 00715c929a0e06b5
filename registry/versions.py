"""Versions: immutable trained memories of an adapter, with their lineage."""

import uuid
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from registry.errors import Invalid, VersionNotFound
from registry.models import Adapter, Alias, Gate, Job, Task, Version

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


def get_version(session: Session, adapter: Adapter, number: int) -> Version:
    """Raises VersionNotFound."""
    found = session.scalars(
        select(Version).where(Version.adapter_id == adapter.id, Version.number == number)
    ).one_or_none()
    if found is None:
        raise VersionNotFound(f"adapter {adapter.name!r} has no version {number}")
    return found


def list_versions(session: Session, adapter: Adapter) -> list[Version]:
    """Oldest first."""
    return list(
        session.scalars(
            select(Version)
            .where(Version.adapter_id == adapter.id)
            .options(joinedload(Version.dataset), joinedload(Version.parent))
            .order_by(Version.number)
        )
    )


def champion(session: Session, adapter: Adapter) -> Version | None:
    return session.scalars(
        select(Version)
        .join(Alias, Alias.version_id == Version.id)
        .where(Alias.adapter_id == adapter.id, Alias.name == "champion")
    ).one_or_none()


def learned_tasks(version: Version | None) -> list[Task]:
    """The tasks of a version's lineage in the order they were first learned; empty for the bare base."""
    tasks: dict[uuid.UUID, Task] = {}
    for ancestor in lineage(version):
        for task in (*ancestor.imported_tasks, ancestor.dataset.task):
            tasks.setdefault(task.id, task)
    return list(tasks.values())


def lineage(version: Version | None) -> list[Version]:
    """From the first ancestor to the version itself; empty for the bare base."""
    chain: list[Version] = []
    while version is not None:
        chain.append(version)
        version = version.parent
    return chain[::-1]


def gate_of(session: Session, version: Version) -> Gate | None:
    return session.scalars(select(Gate).where(Gate.version_id == version.id)).one_or_none()


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


def artifact_beside(version: Version, artifact_hash: str) -> str:
    """Folder of another artifact of the version's project, which its own refers to by hash."""
    return f"{version.artifact_key.rpartition('/')[0]}/{artifact_hash}"


def serving_versions(version: Version) -> list[Version]:
    """Those whose artifacts are read to serve a version, itself last.

    Itself alone; with strategy `isolated`, the newest of its lineage for each task.
    """
    if version.adapter.strategy != "isolated":
        return [version]
    newest = {ancestor.dataset.task_id: ancestor for ancestor in lineage(version)}
    return [*(each for each in newest.values() if each.id != version.id), version]
