"""Garbage: objects in the store that no row names. Found first, removed on demand.

An upload has bytes before it has a row, so nothing younger than a grace period is garbage, by the store's own clock.
Right before each removal the object and the rows are read again: an object that was stored anew meanwhile, or is named
by a row now, stays.

Only folders known here are looked at: datasets, artifacts, analyses, and checkpoints of jobs that have ended.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from registry.database import transaction
from registry.errors import ObjectNotFound
from registry.jobs import LIVE
from registry.models import Dataset, Job
from registry.object_store import ObjectStore, StoredObject
from registry.versions.analyses import kept_analyses
from registry.versions.artifacts import kept_artifacts

_BATCH = 1_000
"""Objects looked up in one query."""


def find_garbage(
    sessions: sessionmaker[Session], store: ObjectStore, project_id: uuid.UUID, *, now: datetime, grace: timedelta
) -> list[StoredObject]:
    """Objects of the project that no row names and that are older than `grace`. Raises StoreUnavailable."""
    # Listed before the rows are read: whatever is stored and recorded in between is either not listed or named.
    old = [found for found in _objects(store, project_id) if found.modified < now - grace]
    with transaction(sessions) as session:
        return _unnamed(session, project_id, old)


def collect_garbage(
    sessions: sessionmaker[Session], store: ObjectStore, project_id: uuid.UUID, *, now: datetime, grace: timedelta
) -> list[StoredObject]:
    """Remove what `find_garbage` finds. Returns the objects that were removed."""
    removed = []
    for found in find_garbage(sessions, store, project_id, now=now, grace=grace):
        try:
            current = store.stat(found.key)
        except ObjectNotFound:
            continue
        with transaction(sessions) as session:
            unnamed = _unnamed(session, project_id, [current])
        if current.modified < now - grace and unnamed:
            store.delete(found.key)
            removed.append(found)
    return removed


def _objects(store: ObjectStore, project_id: uuid.UUID) -> Iterator[StoredObject]:
    for folder in ("datasets", "artifacts", "analyses"):
        yield from store.list(f"projects/{project_id}/{folder}/")
    yield from store.list("jobs/")


def _unnamed(session: Session, project_id: uuid.UUID, objects: Sequence[StoredObject]) -> list[StoredObject]:
    found: list[StoredObject] = []
    for start in range(0, len(objects), _BATCH):
        batch = objects[start : start + _BATCH]
        owners = {each.key: _owner(each.key) for each in batch}
        named = _named_datasets(session, project_id, owners.values())
        named |= kept_artifacts(session, set(owners.values()))
        named |= kept_analyses(session, project_id, set(owners.values()))
        ended = _ended_jobs(session, project_id, owners.values())
        for each in batch:
            owner = owners[each.key]
            if owner in ended if owner.startswith("jobs/") else owner not in named:
                found.append(each)
    return found


def _owner(key: str) -> str:
    """The key or folder that a row would name: a dataset's file, the folder of an artifact, an analysis or a job."""
    parts = key.split("/")
    if parts[0] == "jobs":
        return "/".join(parts[:2])
    return key if parts[2] == "datasets" else "/".join(parts[:4])


def _named_datasets(session: Session, project_id: uuid.UUID, owners: Iterable[str]) -> set[str]:
    query = select(Dataset.object_key).where(Dataset.project_id == project_id, Dataset.object_key.in_(set(owners)))
    return set(session.scalars(query))


def _ended_jobs(session: Session, project_id: uuid.UUID, owners: Iterable[str]) -> set[str]:
    """Folders of the project's jobs that have ended and so write no more. Jobs of other projects are left out."""
    ids = [found for found in map(_job_id, owners) if found is not None]
    query = select(Job.id).where(Job.id.in_(ids), Job.project_id == project_id, Job.state.not_in(LIVE))
    return {f"jobs/{job_id}" for job_id in session.scalars(query)}


def _job_id(owner: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(owner.removeprefix("jobs/"))
    except ValueError:
        return None
