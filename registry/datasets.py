"""Datasets: immutable, content-hashed snapshots of what one training run reads.

New trajectories of one task, plus a replay share of the tasks learned before, balanced by task. Held-out trajectories
and failures never enter.
"""

import hashlib
import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from registry.errors import EmptyDataset
from registry.models import Dataset, DatasetItem, Task, Trajectory


@dataclass(frozen=True)
class Snapshot:
    """A dataset before it is stored: bytes first, then the row."""

    project_id: uuid.UUID
    task_id: uuid.UUID
    items: tuple[tuple[uuid.UUID, bool], ...]
    """(trajectory, replayed) by place."""
    content_hash: str
    manifest: dict[str, object]
    jsonl: bytes

    @property
    def object_key(self) -> str:
        return f"projects/{self.project_id}/datasets/{self.content_hash}.jsonl"


def snapshot(
    session: Session,
    project_id: uuid.UUID,
    task: Task,
    *,
    earlier_tasks: Sequence[Task],
    replay_share: float,
    min_reward: float,
    seed: int,
) -> Snapshot:
    """Choose the items of a dataset. The same rows and arguments give the same snapshot.

    Raises:
        EmptyDataset: the task has nothing to train on.
    """
    new = _learnable(session, task, min_reward)
    if not new:
        raise EmptyDataset(
            f"task {task.name!r} has no trajectory to train on: none outside its held-out share succeeded with a "
            f"reward of at least {min_reward}; upload some, or lower min_reward"
        )
    replayed = _replay(session, earlier_tasks, len(new), replay_share, min_reward, seed)
    chosen = [(row, False) for row in new] + [(row, True) for row in replayed]
    counts: dict[str, int] = {}
    for row in replayed:
        counts[row.task.name] = counts.get(row.task.name, 0) + 1
    manifest: dict[str, object] = {
        "task": task.name,
        "new": len(new),
        "replayed": counts,
        "replay_share": replay_share,
        "min_reward": min_reward,
        "seed": seed,
    }
    lines = [_line(row, replayed=is_replayed) for row, is_replayed in chosen]
    jsonl = "".join(f"{line}\n" for line in lines).encode()
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode() + b"\n" + jsonl).hexdigest()
    return Snapshot(
        project_id=project_id,
        task_id=task.id,
        items=tuple((row.id, is_replayed) for row, is_replayed in chosen),
        content_hash=digest,
        manifest=manifest,
        jsonl=jsonl,
    )


def record_dataset(session: Session, snapshot: Snapshot) -> Dataset:
    """The row of a snapshot whose bytes are stored; an equal one is returned if it exists."""
    known = session.scalars(
        select(Dataset).where(Dataset.project_id == snapshot.project_id, Dataset.content_hash == snapshot.content_hash)
    ).one_or_none()
    if known is not None:
        return known
    dataset = Dataset(
        project_id=snapshot.project_id,
        task_id=snapshot.task_id,
        content_hash=snapshot.content_hash,
        manifest=snapshot.manifest,
        object_key=snapshot.object_key,
    )
    session.add(dataset)
    session.flush()
    session.add_all(
        DatasetItem(dataset_id=dataset.id, place=place, trajectory_id=trajectory_id, replayed=replayed)
        for place, (trajectory_id, replayed) in enumerate(snapshot.items)
    )
    session.flush()
    return dataset


def _learnable(session: Session, task: Task, min_reward: float) -> list[Trajectory]:
    return list(
        session.scalars(
            select(Trajectory)
            .where(
                Trajectory.task_id == task.id,
                Trajectory.held_out.is_(False),
                or_(
                    and_(Trajectory.reward.is_(None), Trajectory.success.is_not(False)),
                    and_(Trajectory.reward >= min_reward, Trajectory.success.is_not(False)),
                ),
            )
            .order_by(Trajectory.content_hash)
        )
    )


def _replay(
    session: Session, tasks: Sequence[Task], new: int, share: float, min_reward: float, seed: int
) -> list[Trajectory]:
    """Items of earlier tasks that make up `share` of the whole, the same number of each task.

    A task with fewer items than its part gives some of them more than once.
    """
    if not tasks or share <= 0.0:
        return []
    per_task = max(1, round(new * share / (1.0 - share) / len(tasks)))
    chosen: list[Trajectory] = []
    for task in tasks:
        pool = _learnable(session, task, min_reward)
        draw = random.Random(f"{seed}:{task.name}")  # noqa: S311 - reproducible choice, not a secret
        rounds, rest = divmod(per_task, len(pool)) if pool else (0, 0)
        chosen.extend(pool * rounds + draw.sample(pool, rest))
    return chosen


def _line(row: Trajectory, *, replayed: bool) -> str:
    return json.dumps(
        {
            "id": str(row.id),
            "task": row.task.name,
            "replayed": replayed,
            "messages": row.messages,
            "tools": row.tools,
            "reward": row.reward,
        },
        ensure_ascii=False,
        sort_keys=True,
    )
