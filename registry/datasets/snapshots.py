"""Datasets: immutable, content-hashed snapshots of the trajectories that one training run reads.

New trajectories of one task, plus a replay share of the tasks learned before, balanced by task. Held-out trajectories
and failures never enter.

The replayed items of a task are a reservoir: those with the smallest keyed hashes, a uniform sample that depends on
nothing but the trajectories and the seed. A new item displaces at most one other, so that consecutive trainings replay
nearly the same experience.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from registry.database import one_of
from registry.datasets.manifest import Manifest
from registry.errors import EmptyDataset, SnapshotOutdated
from registry.models import Dataset, DatasetItem, JsonObject, Task, Trajectory
from registry.trajectories.holdout import find_shared_prefix_group


@dataclass(frozen=True)
class Snapshot:
    """A dataset before it is stored: bytes first, then the row."""

    project_id: uuid.UUID
    task_id: uuid.UUID
    items: tuple[tuple[uuid.UUID, bool], ...]
    """Pairs (trajectory id, whether it is replayed), in order."""
    rewards: tuple[float | None, ...]
    """Reward of each item."""
    content_hash: str
    manifest: Manifest
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
    new = session.scalars(
        select(Trajectory).where(learnable(task.id, min_reward)).order_by(Trajectory.content_hash)
    ).all()
    if not new:
        group = find_shared_prefix_group(session, task)
        raise EmptyDataset(
            f"task {task.name!r} has no trajectory to train on: none outside its held-out share succeeded with a "
            f"reward of at least {min_reward}; upload some, or lower min_reward" + (f". {group}" if group else "")
        )
    reservoirs = _reservoirs(session, earlier_tasks, len(new), replay_share, min_reward, seed)
    replayed = [row for reservoir in reservoirs for row in reservoir.rows]
    chosen = [(row, False) for row in new] + [(row, True) for row in replayed]
    manifest = Manifest(
        task=task.name,
        new=len(new),
        replayed={each.task: len(each.rows) for each in reservoirs if each.rows},
        replay_share=replay_share,
        buffer={each.task: each.description() for each in reservoirs},
        min_reward=min_reward,
        seed=seed,
    )
    items = [(row.id, is_replayed) for row, is_replayed in chosen]
    lines = [_line(row, replayed=is_replayed) for row, is_replayed in chosen]
    return make_snapshot(project_id, task, items, manifest, lines, [row.reward for row, _ in chosen])


def make_snapshot(
    project_id: uuid.UUID,
    task: Task,
    items: Sequence[tuple[uuid.UUID, bool]],
    manifest: Manifest,
    lines: Sequence[str],
    rewards: Sequence[float | None],
) -> Snapshot:
    """A snapshot with its hash, which covers the manifest and every line.

    Args:
        items: (trajectory, replayed) by place.
        lines: JSON texts, one for each of the items, or none at all where an environment makes the items.
        rewards: one for each of the items, as in its line.
    """
    jsonl = "".join(f"{line}\n" for line in lines).encode()
    digest = hashlib.sha256(json.dumps(manifest.to_json(), sort_keys=True).encode() + b"\n" + jsonl).hexdigest()
    return Snapshot(project_id, task.id, tuple(items), tuple(rewards), digest, manifest, jsonl)


def record_dataset(session: Session, snapshot: Snapshot) -> Dataset:
    """The row of a snapshot whose bytes are stored; an equal one is returned if it exists.

    Raises:
        SnapshotOutdated: some of its trajectories were deleted after it was taken.
    """
    _lock_items(session, snapshot)
    # Two jobs may take the same snapshot at once: the second finds the row of the first.
    same = func.hashtextextended(f"dataset {snapshot.project_id} {snapshot.content_hash}", 0)
    session.execute(select(func.pg_advisory_xact_lock(same)))
    known = find_dataset(session, snapshot)
    if known is not None:
        return known
    dataset = Dataset(
        project_id=snapshot.project_id,
        task_id=snapshot.task_id,
        content_hash=snapshot.content_hash,
        manifest=snapshot.manifest.to_json(),
        object_key=snapshot.object_key,
    )
    session.add(dataset)
    session.flush()
    session.add_all(
        DatasetItem(dataset_id=dataset.id, place=place, trajectory_id=trajectory_id, replayed=replayed, reward=reward)
        for place, ((trajectory_id, replayed), reward) in enumerate(zip(snapshot.items, snapshot.rewards, strict=True))
    )
    session.flush()
    return dataset


def find_dataset(session: Session, snapshot: Snapshot) -> Dataset | None:
    """The row of an equal snapshot, or None."""
    same = Dataset.project_id == snapshot.project_id, Dataset.content_hash == snapshot.content_hash
    return session.scalars(select(Dataset).where(*same)).one_or_none()


def _lock_items(session: Session, snapshot: Snapshot) -> None:
    """Lock the trajectories against deletion, in the order in which a deletion locks them: there is no deadlock."""
    ids = {trajectory_id for trajectory_id, _ in snapshot.items}
    query = select(Trajectory.id).where(one_of(Trajectory.id, ids)).order_by(Trajectory.id)
    found = session.scalars(query.with_for_update(read=True, key_share=True)).all()
    if len(found) < len(ids):
        raise SnapshotOutdated(
            f"{len(ids) - len(found)} of the {len(ids)} trajectories were deleted after the snapshot was taken; take "
            "another one"
        )


@dataclass(frozen=True)
class _Reservoir:
    """The replayed items of one earlier task."""

    task: str
    pool: int
    """Number of trajectories that the items were chosen from."""
    rows: tuple[Trajectory, ...]
    """The items; some occur more than once if the pool is smaller than the task's part."""

    def description(self) -> JsonObject:
        hashes = sorted({row.content_hash for row in self.rows})
        return {
            "pool": self.pool,
            "items": len(hashes),
            "content_hash": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        }


def learnable(task_id: uuid.UUID, min_reward: float) -> ColumnElement[bool]:
    """Whether a trajectory of the task may be trained on."""
    return and_(
        Trajectory.task_id == task_id,
        ~is_own_and_unrewarded(),
        Trajectory.held_out.is_(False),
        Trajectory.success.is_not(False),
        or_(Trajectory.reward.is_(None), Trajectory.reward >= min_reward),
    )


def is_own_and_unrewarded() -> ColumnElement[bool]:
    """Whether a trajectory was answered here, by a model of ours, and nobody said whether it was good.

    A demonstration without a reward is one that somebody chose to send; of these nobody did.
    """
    return and_(
        Trajectory.sampled.is_not(None),
        Trajectory.reward.is_(None),
        Trajectory.success.is_(None),
    )


def _reservoirs(
    session: Session, tasks: Sequence[Task], new: int, share: float, min_reward: float, seed: int
) -> list[_Reservoir]:
    """Items of earlier tasks that make up `share` of the whole, the same number of each task.

    A task with fewer items than its part gives some of them more than once.
    """
    if not tasks or share <= 0.0:
        return []
    part = max(1, round(new * share / (1.0 - share) / len(tasks)))
    return [_reservoir(session, task, part, min_reward, seed) for task in tasks]


def _reservoir(session: Session, task: Task, part: int, min_reward: float, seed: int) -> _Reservoir:
    pool = session.execute(select(Trajectory.id, Trajectory.content_hash).where(learnable(task.id, min_reward))).all()
    if not pool:
        return _Reservoir(task.name, 0, ())
    key = f"{seed}\n{task.name}\n"
    ranked = sorted(pool, key=lambda row: hashlib.sha256((key + row.content_hash).encode()).digest())
    kept = [row.id for row in ranked[:part]]
    rows = {row.id: row for row in session.scalars(select(Trajectory).where(Trajectory.id.in_(kept)))}
    return _Reservoir(task.name, len(pool), tuple(rows[kept[n % len(kept)]] for n in range(part)))


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
    )
