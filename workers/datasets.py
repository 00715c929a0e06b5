"""The dataset of a training: the snapshot is taken, its bytes are stored, its row is recorded and bound to the job.

This module knows nothing of what a snapshot holds. Data may be deleted between the snapshot and its row, for reasons
that have nothing to do with this training: the snapshot is taken anew then. Where deletions come one after the other,
as of a user who has many trajectories, the last one is taken while they wait.
"""

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from registry import jobs
from registry.database import transaction
from registry.datasets import snapshots
from registry.datasets.snapshots import Snapshot
from registry.errors import SnapshotOutdated
from registry.json_text import jsonl_lines
from registry.models import Dataset, Job
from registry.trajectories.records import lock_trajectories
from workers.runner import Running

_ATTEMPTS = 2
"""Snapshots taken while nobody waits. One is lost only to a deletion within seconds; two in a row are more than
chance."""


def dataset_of(running: Running, take: Callable[[Session], Snapshot]) -> Dataset:
    """The job's dataset, made on the first attempt: bytes first, then the row.

    Raises:
        Cancelled: the job was cancelled, or another worker has it now.
    """
    services = running.services
    for _ in range(_ATTEMPTS):
        with transaction(services.sessions) as session:
            job = session.get_one(Job, running.job_id)
            if job.dataset_id is not None:
                return session.get_one(Dataset, job.dataset_id)
            snapshot = take(session)
            known = snapshots.find_dataset(session, snapshot)
        if known is None:
            services.store.put(snapshot.object_key, snapshot.jsonl)
        try:
            with transaction(services.sessions) as session:
                return _record(session, running, snapshot)
        except SnapshotOutdated as error:
            _remove(running, snapshot)
            running.event(f"the dataset is made anew: {error}", level="warning")
            running.check()
    with transaction(services.sessions) as session:
        lock_trajectories(session, session.get_one(Job, running.job_id).project_id)
        snapshot = take(session)
        if snapshots.find_dataset(session, snapshot) is None:
            services.store.put(snapshot.object_key, snapshot.jsonl)
        return _record(session, running, snapshot)


def lines_of(running: Running, dataset: Dataset) -> list[dict[str, Any]]:
    """The lines that the dataset holds, in order."""
    return [json.loads(line) for line in jsonl_lines(running.services.store.get(dataset.object_key))]


def _record(session: Session, running: Running, snapshot: Snapshot) -> Dataset:
    dataset = snapshots.record_dataset(session, snapshot)
    jobs.set_dataset(session, running.job_id, running.attempt, dataset.id)
    return dataset


def _remove(running: Running, snapshot: Snapshot) -> None:
    """Remove the bytes of a snapshot that has no row. If an earlier row names the same bytes, other jobs read them:
    they stay, and the deletion, which waits for this job, drops the lines."""
    with transaction(running.services.sessions) as session:
        recorded = snapshots.find_dataset(session, snapshot) is not None
    if not recorded:
        running.services.store.delete(snapshot.object_key)
