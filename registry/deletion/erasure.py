"""Erasure: the second part of a deletion, which removes bytes in the object store and copies that running jobs made.

It can be repeated at any point, and is repeated until nothing is left and no job of that time still runs. No session is
open while objects are read and written.

An object can't be locked and is rewritten as a whole, so two erasures at once would put back each other's lines. They
take turns, one at a time in a project (`registry.database.take_turn`). A lease on a row could run out while the store
is slow, and two erasures would write at once; this turn ends only when its holder is done or dead.
"""

import json
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, sessionmaker

from registry.clock import utc_now
from registry.database import one_of, take_turn, transaction
from registry.errors import ObjectNotFound
from registry.jobs import LIVE
from registry.json_text import jsonl_lines
from registry.models import (
    Adapter,
    Dataset,
    Deletion,
    DeletionDataset,
    Erasure,
    Evaluation,
    Job,
    Suite,
    SuiteItem,
    Task,
    Version,
)
from registry.object_store import ObjectStore
from registry.versions.analyses import ITEMS_FILE, analyses_prefix
from registry.versions.lineage import loaded_versions, versions_touched
from registry.versions.state import withdraw

_EXPERIENCE, _ENTRIES = "/experience/", "entries.json"
"""Folder and file of an artifact that hold past trajectories and insights as text (`memgen.experience.pool`)."""


@dataclass(frozen=True)
class _Work:
    deleted: frozenset[str]
    """Ids of the trajectories of this deletion, and of all others that touched one of its datasets: an erasure that
    lost its turn to a broken connection may have put back what another had removed."""
    dataset_keys: tuple[str, ...]
    object_keys: tuple[str, ...]
    prefix: str
    """Prefix of the project's datasets."""
    recorded: frozenset[str]
    """Keys with that prefix that a row names."""
    artifacts: str
    """Prefix of the project's artifacts."""
    untouched: frozenset[str]
    """Artifacts with that prefix of versions that did not learn the data."""
    analyses: str
    """Prefix of the project's analyses."""
    still_running: bool
    """Whether a job can still write that may have read the data before it was deleted: one that began before the first
    pass. Jobs that begin later read only what is left."""
    began: datetime
    """Start of this pass by the database's clock, like the jobs' times."""
    swept: bool
    """Whether an earlier pass was complete, so that there is nothing to do before the jobs have ended."""


def unfinished_erasures(session: Session) -> list[uuid.UUID]:
    """Ids of deletions whose bytes are not all gone, oldest first."""
    query = select(Erasure.deletion_id).join(Deletion).where(Erasure.finished_at.is_(None))
    return list(session.scalars(query.order_by(Deletion.seq)))


def finish_erasure(sessions: sessionmaker[Session], store: ObjectStore, deletion_id: uuid.UUID) -> bool:
    """Remove what can be removed now. Returns whether that was all.

    Returns False, too, while another erasure of the project is running; the beat tries again.

    Raises:
        StoreUnavailable, OperationalError: a server is away.
    """
    with transaction(sessions) as session:
        project_id = session.get_one(Deletion, deletion_id).project_id
    with take_turn(sessions, f"erasures of {project_id}") as mine:
        if not mine:
            return False
        with transaction(sessions) as session:
            work = _work(session, deletion_id)
        if work.still_running and work.swept:
            return False
        _sweep(store, work)
    with transaction(sessions) as session:
        _after_jobs(session, deletion_id)
        erasure = session.get_one(Erasure, deletion_id)
        erasure.swept_at = erasure.swept_at or work.began
        if not work.still_running:
            erasure.finished_at = utc_now()
    return not work.still_running


def blank_missing_answers(session: Session, project_id: uuid.UUID) -> None:
    """Blank the answers of evaluations at places whose trajectory was deleted; the scores stay."""
    present = select(func.count()).where(SuiteItem.suite_id == Suite.id).scalar_subquery()
    damaged = session.scalars(
        select(Suite).join(Task, Task.id == Suite.task_id).where(Task.project_id == project_id, Suite.items > present)
    ).all()
    with may_erase(session):
        for suite in damaged:
            kept = set(session.scalars(select(SuiteItem.place).where(SuiteItem.suite_id == suite.id)))
            rows = select(Evaluation).where(Evaluation.suite_id == suite.id).with_for_update()
            for row in session.scalars(rows.execution_options(populate_existing=True)):
                items = [item if place in kept else _numbers_only(item) for place, item in enumerate(row.items)]
                if items != row.items:
                    row.items = items
        session.flush()


@contextmanager
def may_erase(session: Session) -> Iterator[None]:
    """Within the block, texts of immutable rows may be blanked: the trigger honours the transaction's own setting."""
    session.execute(select(func.set_config("memgen.erasing", "on", True)))
    yield
    session.execute(select(func.set_config("memgen.erasing", "off", True)))


def _work(session: Session, deletion_id: uuid.UUID) -> _Work:
    erasure = session.get_one(Erasure, deletion_id)
    project_id = erasure.deletion.project_id
    began = session.scalars(select(func.now())).one()
    running = select(Job.id).where(
        one_of(Job.id, [uuid.UUID(each) for each in erasure.job_ids]),
        Job.state.in_(LIVE),
        Job.started_at <= (erasure.swept_at or began),
    )
    mine = select(DeletionDataset.dataset_id).where(DeletionDataset.deletion_id == deletion_id)
    same = select(DeletionDataset.deletion_id).where(DeletionDataset.dataset_id.in_(mine))
    gone = session.scalars(select(Deletion.trajectories).where(or_(Deletion.id == deletion_id, Deletion.id.in_(same))))
    return _Work(
        deleted=frozenset(row["id"] for rows in gone for row in rows),
        dataset_keys=tuple(erasure.datasets),
        object_keys=tuple(erasure.objects),
        prefix=f"projects/{project_id}/datasets/",
        recorded=frozenset(session.scalars(select(Dataset.object_key).where(Dataset.project_id == project_id))),
        artifacts=f"projects/{project_id}/artifacts/",
        untouched=_untouched(session, project_id, session.scalars(mine).all()),
        analyses=analyses_prefix(project_id),
        still_running=session.scalars(running.limit(1)).one_or_none() is not None,
        began=began,
        swept=erasure.swept_at is not None,
    )


def _sweep(store: ObjectStore, work: _Work) -> None:
    for key in work.dataset_keys:
        _drop_lines(store, key, work.deleted)
    for key in work.object_keys:
        store.delete(key)
    for found in store.list(work.prefix):
        # An unrecorded dataset of a job that had read the data and was then not allowed to record it.
        if found.key not in work.recorded and _holds_lines(store, found.key, work.deleted):
            store.delete(found.key)
    for found in store.list(work.artifacts):
        artifact, _, file = found.key.partition(_EXPERIENCE)
        # Artifacts of withdrawn versions, and of jobs that were not allowed to register their version.
        if file == _ENTRIES and artifact not in work.untouched and _holds_entries(store, found.key, work.deleted):
            store.delete_folder(f"{artifact}{_EXPERIENCE}".rstrip("/"))
    for found in store.list(work.analyses):
        # Latents follow from what was read. What a job at work has finished so far goes too: it begins anew.
        name, _, file = found.key.removeprefix(work.analyses).partition("/")
        if file.rpartition("/")[2] == ITEMS_FILE and _holds_lines(store, found.key, work.deleted, "item"):
            store.delete_folder(f"{work.analyses}{name}")


def _untouched(session: Session, project_id: uuid.UUID, dataset_ids: Collection[uuid.UUID]) -> frozenset[str]:
    """Artifacts of the project's versions that learned none of the datasets."""
    learned = {version.id for version in versions_touched(session, dataset_ids)}
    every = select(Version.id, Version.artifact_key).join(Adapter).where(Adapter.project_id == project_id)
    return frozenset(row.artifact_key for row in session.execute(every) if row.id not in learned)


def _after_jobs(session: Session, deletion_id: uuid.UUID) -> None:
    """Blank answers to deleted prompts, and withdraw versions, that running jobs have recorded since the deletion."""
    deletion = session.get_one(Deletion, deletion_id)
    datasets = session.scalars(
        select(DeletionDataset.dataset_id).where(DeletionDataset.deletion_id == deletion_id)
    ).all()
    if deletion.policy == "withdraw":
        # Whoever promotes asks first, under this lock, whether a version may serve.
        adapters = {version.adapter_id for version in versions_touched(session, datasets)}
        session.scalars(select(Adapter).where(Adapter.id.in_(adapters)).order_by(Adapter.id).with_for_update()).all()
    blank_missing_answers(session, deletion.project_id)
    if deletion.policy == "withdraw":
        for version in loaded_versions(session, versions_touched(session, datasets)):
            evidence = {"deletion": str(deletion.id)}
            withdraw(session, version, actor=deletion.actor, reason=deletion.reason, evidence=evidence)


def _drop_lines(store: ObjectStore, key: str, deleted: frozenset[str]) -> None:
    try:
        lines = jsonl_lines(store.get(key))
    except ObjectNotFound:
        return
    kept = [line for line in lines if json.loads(line).get("id") not in deleted]
    if len(kept) < len(lines):
        store.put(key, b"".join(line + b"\n" for line in kept))


def _holds_lines(store: ObjectStore, key: str, deleted: frozenset[str], name: str = "id") -> bool:
    try:
        return any(json.loads(line).get(name) in deleted for line in jsonl_lines(store.get(key)))
    except ObjectNotFound:
        return False


def _holds_entries(store: ObjectStore, key: str, deleted: frozenset[str]) -> bool:
    try:
        pool = json.loads(store.get(key))
    except ObjectNotFound:
        return False
    entries = {entry["entry_id"] for entry in pool["trajectories"]}
    sources = {source for insight in pool["insights"] for source in insight.get("sources", ())}
    return not deleted.isdisjoint(entries | sources)


def _numbers_only(item: dict[str, Any]) -> dict[str, Any]:
    """Scores stay, so that verdicts that rest on them can still be checked."""
    kept = {key: value for key, value in item.items() if value is None or isinstance(value, bool | int | float)}
    return {**kept, "answer": "", "erased": True}
