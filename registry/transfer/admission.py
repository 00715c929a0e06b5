"""Admission of versions that another installation trained: registered from an archive, marked with their origin.

They are unchecked until a job of kind `check_import` of this installation has judged them on the suites that are here.
If there are no held-out items of any task that the version learned, the gate says so and takes the origin's verdict.

An archive of an artifact that the adapter has already makes no second version: it brings back the bytes if retention
removed them.
"""

import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import jobs
from registry.binding import changed_parts
from registry.clock import utc_now
from registry.datasets.suites import is_reference
from registry.errors import InvalidArchive
from registry.gates.baseline import baseline_of, tasks_to_judge
from registry.gates.gate import GateTerms, origin_verdict, record_gate
from registry.gates.verdict import gate_of
from registry.job_requests import CheckImport, RecordImport
from registry.models import (
    Adapter,
    Dataset,
    Gate,
    Job,
    Suite,
    Task,
    Trajectory,
    Version,
    VersionImport,
    VersionImportDataset,
    VersionImportTask,
    VersionState,
)
from registry.retention.policy import restore
from registry.tasks import create_task, find_tasks
from registry.transfer.provenance import check_learned_nothing_deleted, datasets_learned
from registry.versions.champion import champion
from registry.versions.records import form_of, register_version
from registry.versions.state import record_change


@dataclass(frozen=True)
class Imported:
    version: Version
    check: Job | None
    """The job that judges the version, if it is new."""
    restored: bool
    """Whether retention had removed its bytes."""


def check_fits(adapter: Adapter, description: dict[str, Any]) -> None:
    """Raise InvalidArchive unless the archive was made for the adapter's base, strategy and kind of memory."""
    # The revision is what counts: the same base may have another name here, such as a local folder's.
    if description["base_revision"] != adapter.base_revision:
        raise InvalidArchive(
            f"the archive was made for {description['base_model']} at {description['base_revision']}; adapter "
            f"{adapter.name!r} is bound to {adapter.base_model} at {adapter.base_revision}"
        )
    if changed := changed_parts(description["base_identity"], adapter.base_identity):
        raise InvalidArchive(
            f"the archive was made for {description['base_model']} with another {' and another '.join(changed)} than "
            f"{adapter.base_model} has, which adapter {adapter.name!r} is bound to; give the base here the files that "
            "it has at the archive's origin, and create an adapter for it"
        )
    # A memory per task of a single task is one memory, and goes anywhere.
    if description["strategy"] == "isolated" and description["parts"] and adapter.strategy != "isolated":
        raise InvalidArchive(
            f"the archive has a memory per task (strategy 'isolated'); adapter {adapter.name!r} has strategy "
            f"{adapter.strategy!r}, which would lose all but one of them. Create an adapter with strategy 'isolated'"
        )
    theirs, ours = description["memory"], adapter.memory
    # A side that is older than a field lacks it, and means that the feature is off: nothing, 0, false.
    keys = theirs.keys() | ours.keys()
    different = sorted(key for key in keys if (theirs.get(key) or None) != (ours.get(key) or None))
    if different:
        values = "; ".join(f"{key}: {theirs.get(key)!r} in the archive, {ours.get(key)!r} here" for key in different)
        raise InvalidArchive(
            f"the archive's memory differs from that of adapter {adapter.name!r} ({values}); create an adapter with "
            "the same memory settings"
        )


def admit(
    session: Session, adapter: Adapter, description: dict[str, Any], report: dict[str, Any], *, key: str, actor: str
) -> Imported:
    """The version of an archive: a new one, or the one that the adapter has with the same artifact.

    Takes and raises the same as `import_version`; raises VersionNotServable as `registry.retention.policy.restore`.
    """
    known = find_import(session, adapter, description["artifact_hash"])
    if known is None:
        version, check = import_version(session, adapter, description, report, key=key, actor=actor)
        return Imported(version, check, restored=False)
    check_learned_nothing_deleted(session, adapter.project_id, description)
    parts = description["parts"].values()
    restored = restore(session, known, parts, actor=actor, evidence=_evidence(description))
    return Imported(known, None, restored=restored)


def find_import(session: Session, adapter: Adapter, artifact_hash: str) -> Version | None:
    """The version of the adapter that has the artifact, trained here or imported before; one with its bytes first."""
    query = select(Version).outerjoin(VersionState, VersionState.version_id == Version.id)
    same = query.where(Version.adapter_id == adapter.id, Version.artifact_hash == artifact_hash)
    return session.scalars(same.order_by(VersionState.purged_at.is_not(None), Version.number).limit(1)).first()


def import_version(
    session: Session, adapter: Adapter, description: dict[str, Any], report: dict[str, Any], *, key: str, actor: str
) -> tuple[Version, Job]:
    """Register the version of an archive whose bytes are stored under `key`, its parts beside, and the job that judges
    it.

    Tasks that the project lacks are created as they were at the origin; ones that it has stay as they are.

    Args:
        adapter: locked by the caller.
        report: the artifact's training report.

    Raises:
        InvalidArchive: as `check_fits`.
        LearnedDeleted: as `check_learned_nothing_deleted`.
    """
    check_fits(adapter, description)
    check_learned_nothing_deleted(session, adapter.project_id, description)
    tasks = _tasks(session, adapter.project_id, description["tasks"])
    own = next(task for task in tasks if task.name == description["lineage"][-1]["task"])
    form = description["form"] or form_of(adapter)
    record = RecordImport(_origin_name(description), form=form if form != form_of(adapter) else None)
    job = jobs.create_job(session, adapter.project_id, record, adapter)
    job.dataset_id = _dataset(session, adapter, own, description).id
    job.state, job.started_at, job.finished_at = "succeeded", utc_now(), utc_now()
    session.flush()
    version = register_version(
        session,
        job,
        adapter,
        parent_id=None,
        artifact_key=key,
        artifact_hash=description["artifact_hash"],
        code_version=description["code_version"],
        report=report,
    )
    job.result = {"version": version.number}
    session.add(VersionImport(version_id=version.id, origin=description))
    session.add_all(
        VersionImportTask(version_id=version.id, place=place, task_id=task.id) for place, task in enumerate(tasks)
    )
    session.add_all(
        VersionImportDataset(version_id=version.id, dataset_id=dataset_id)
        for dataset_id in datasets_learned(session, adapter.project_id, description)
    )
    record_change(session, version, "imported", actor=actor, evidence=_evidence(description))
    check = jobs.create_job(session, adapter.project_id, CheckImport(version.number, promote=False), adapter)
    return version, check


def can_be_checked(session: Session, version: Version) -> bool:
    """Whether this installation has held-out items, or a suite, of a task that the version or the champion learned."""
    baseline = baseline_of(session, version.adapter).version
    ids = [task.id for task in tasks_to_judge(session, version, baseline)]
    held_out = select(Trajectory.id).where(Trajectory.task_id.in_(ids), is_reference())
    suites = select(Suite.id).where(Suite.task_id.in_(ids))
    return any(session.scalars(query.limit(1)).first() is not None for query in (held_out, suites))


def accept_origin_verdict(session: Session, version: Version) -> Gate:
    """The gate of a version that can't be checked here: the origin's verdict, marked as such."""
    known = gate_of(session, version)
    if known is not None:
        return known
    return record_gate(
        session,
        version,
        baseline=champion(session, version.adapter),
        comparisons=[origin_verdict(session, version)],
        terms=GateTerms.of(version.adapter),
        policy=version.adapter.gate_policy,
    )


def _evidence(description: dict[str, Any]) -> dict[str, Any]:
    """Evidence of the history row that an archive leaves."""
    return {"origin": _origin_name(description), "artifact_hash": description["artifact_hash"]}


def _origin_name(description: dict[str, Any]) -> str:
    return f"{description['adapter']}@{description['number']}"


def _tasks(session: Session, project_id: uuid.UUID, described: list[dict[str, Any]]) -> list[Task]:
    known = find_tasks(session, project_id, [task["name"] for task in described])
    for task in described:
        if task["name"] not in known:
            known[task["name"]], _ = create_task(
                session,
                project_id,
                task["name"],
                grader=task["grader"],
                holdout_share=task["holdout_share"],
                shared_turns=task["shared_turns"],
                description=task["description"],
            )
    return [known[task["name"]] for task in described]


def _dataset(session: Session, adapter: Adapter, task: Task, description: dict[str, Any]) -> Dataset:
    """The row of the origin's dataset, with its hash and manifest; its trajectories stayed at the origin."""
    own = description["lineage"][-1]
    known = session.scalars(
        select(Dataset).where(Dataset.project_id == adapter.project_id, Dataset.content_hash == own["dataset_hash"])
    ).one_or_none()
    if known is not None:
        return known
    dataset = Dataset(
        project_id=adapter.project_id,
        task_id=task.id,
        content_hash=own["dataset_hash"],
        manifest={**own["dataset"], "imported": True},
        object_key=f"projects/{adapter.project_id}/datasets/{own['dataset_hash']}.jsonl",
    )
    session.add(dataset)
    session.flush()
    return dataset
