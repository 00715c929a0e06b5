"""What waits to be learned by a schedule: the trajectories that count as new, and those that came and do not count."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, case, false, func, or_, select
from sqlalchemy.orm import Session

from registry.datasets.manifest import trains_weaver
from registry.datasets.snapshots import is_own_and_unrewarded, learnable
from registry.models import Dataset, DatasetItem, Schedule, ScheduleRun, Trajectory, Version
from registry.schedules.schedules import training_request

_SNAPSHOT_TIME = timedelta(days=1)
"""More than the time from a dataset's choice of trajectories to its row, and than any transaction that rewards one.
What was rewarded before needs no look: the dataset has it."""


@dataclass(frozen=True)
class Waiting:
    """The trajectories that may be learned from and were not yet."""

    count: int
    up_to_seq: int
    """Arrival number of the newest of them; 0 for none."""


@dataclass(frozen=True)
class NotCounted:
    """The trajectories that came since the adapter last learned and may not be learned, each by the first reason."""

    unrewarded: int = 0
    """Answered here, and nobody said whether they were good."""
    low_reward: int = 0
    """Rewarded with less than the schedule's `min_reward`."""
    failed: int = 0
    """Marked as no success by who sent them."""
    held_out: int = 0
    """Kept for evaluation."""

    def in_words(self, min_reward: float) -> str:
        """`12 without a reward, 3 held out`; empty if there are none."""
        texts = (
            (self.unrewarded, "without a reward"),
            (self.low_reward, f"with a reward below {min_reward:g}"),
            (self.failed, "marked as failures"),
            (self.held_out, "held out"),
        )
        return ", ".join(f"{count} {text}" for count, text in texts if count)


def waiting_for(session: Session, schedule: Schedule) -> Waiting:
    """What the schedule counts: learnable trajectories that came after the newest one that the adapter has learned, and
    older ones whose reward the adapter has not learned: it came later, or is another one now.

    Kinds other than cron count only what came after the ones of the last job as well, so that a job that fails is not
    started again at every tick.
    """
    learned, tried = session.execute(_newest_dataset(schedule)).one_or_none(), _tried(session, schedule)
    mark = 0
    is_rewarded_since: ColumnElement[bool] = false()
    if learned is not None:
        items = select(DatasetItem.place).where(DatasetItem.dataset_id == learned.id)
        mine = items.where(DatasetItem.trajectory_id == Trajectory.id)
        is_rewarded_since = and_(
            Trajectory.rewarded_at > learned.created_at - _SNAPSHOT_TIME,
            Trajectory.reward.is_not(None),
            ~mine.where(DatasetItem.reward == Trajectory.reward).exists(),
        )
        mark = _newest_of(session, learned.id, schedule.task_id)
    if schedule.kind != "cron" and tried is not None:
        mark = max(mark, tried.up_to_seq)
        is_rewarded_since = and_(is_rewarded_since, Trajectory.rewarded_at > tried.at)
    count, newest = session.execute(
        select(func.count(), func.coalesce(func.max(Trajectory.seq), 0)).where(
            learnable(schedule.task_id, training_request(schedule).min_reward),
            or_(Trajectory.seq > mark, is_rewarded_since),
        )
    ).one()
    return Waiting(count, newest)


def not_counted(session: Session, schedule: Schedule) -> NotCounted:
    """What came since the adapter last learned the task, and why it does not count as new."""
    learned = session.execute(_newest_dataset(schedule)).one_or_none()
    mark = 0 if learned is None else _newest_of(session, learned.id, schedule.task_id)
    why = case(
        (is_own_and_unrewarded(), "unrewarded"),
        (Trajectory.reward < training_request(schedule).min_reward, "low_reward"),
        (Trajectory.success.is_(False), "failed"),
        (Trajectory.held_out, "held_out"),
    )
    query = select(why, func.count()).where(Trajectory.task_id == schedule.task_id, Trajectory.seq > mark)
    return NotCounted(**{reason: count for reason, count in session.execute(query.group_by(why)) if reason})


def _newest_dataset(schedule: Schedule) -> Select[uuid.UUID, datetime]:
    """The dataset of the adapter's newest version whose weaver was trained on the task, whatever its gate decided."""
    return (
        select(Dataset.id, Dataset.created_at)
        .join(Version, Version.dataset_id == Dataset.id)
        .where(
            Version.adapter_id == schedule.adapter_id,
            Dataset.task_id == schedule.task_id,
            trains_weaver(),
        )
        .order_by(Version.number.desc())
        .limit(1)
    )


def _newest_of(session: Session, dataset_id: uuid.UUID, task_id: uuid.UUID) -> int:
    """Arrival number of the newest trajectory of the task in the dataset; 0 for none."""
    found = session.scalar(
        select(func.max(Trajectory.seq))
        .join(DatasetItem, DatasetItem.trajectory_id == Trajectory.id)
        .where(DatasetItem.dataset_id == dataset_id, Trajectory.task_id == task_id)
    )
    return found or 0


@dataclass(frozen=True)
class _Tried:
    """What the schedule's jobs were started for so far."""

    up_to_seq: int
    at: datetime


def _tried(session: Session, schedule: Schedule) -> _Tried | None:
    query = select(func.max(ScheduleRun.up_to_seq), func.max(ScheduleRun.at))
    found = session.execute(query.where(ScheduleRun.schedule_id == schedule.id, ScheduleRun.outcome == "started")).one()
    return None if found[1] is None else _Tried(found[0], found[1])
