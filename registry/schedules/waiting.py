"""What waits to be learned by a schedule: the trajectories that count as new, and those that came and do not count."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, case, false, func, literal, or_, select, true, union_all
from sqlalchemy.orm import Session

from registry.database import one_of
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
    return waiting_of(session, [schedule])[schedule.id]


def waiting_of(session: Session, schedules: Sequence[Schedule]) -> dict[uuid.UUID, Waiting]:
    """`waiting_for` of each of the schedules, by its id, in as many statements as for one."""
    learned = _learned(session, schedules)
    counts = [
        select(literal(schedule.id), func.count(), func.coalesce(func.max(Trajectory.seq), 0)).where(
            *_is_waiting(schedule, learned[schedule.id])
        )
        for schedule in schedules
    ]
    if not counts:
        return {}
    return {row[0]: Waiting(row[1], row[2]) for row in session.execute(union_all(*counts))}


def _is_waiting(schedule: Schedule, learned: "_Learned") -> tuple[ColumnElement[bool], ...]:
    mark = learned.newest
    is_rewarded_since: ColumnElement[bool] = false()
    if learned.dataset_id is not None and learned.made_at is not None:
        items = select(DatasetItem.place).where(DatasetItem.dataset_id == learned.dataset_id)
        mine = items.where(DatasetItem.trajectory_id == Trajectory.id)
        is_rewarded_since = and_(
            Trajectory.rewarded_at > learned.made_at - _SNAPSHOT_TIME,
            Trajectory.reward.is_not(None),
            ~mine.where(DatasetItem.reward == Trajectory.reward).exists(),
        )
    if schedule.kind != "cron" and learned.tried_at is not None:
        mark = max(mark, learned.tried_up_to)
        is_rewarded_since = and_(is_rewarded_since, Trajectory.rewarded_at > learned.tried_at)
    may_be_learned = learnable(schedule.task_id, training_request(schedule).min_reward)
    return may_be_learned, or_(Trajectory.seq > mark, is_rewarded_since)


def not_counted(session: Session, schedule: Schedule) -> NotCounted:
    """What came since the adapter last learned the task, and why it does not count as new."""
    mark = _learned(session, [schedule])[schedule.id].newest
    why = case(
        (is_own_and_unrewarded(), "unrewarded"),
        (Trajectory.reward < training_request(schedule).min_reward, "low_reward"),
        (Trajectory.success.is_(False), "failed"),
        (Trajectory.held_out, "held_out"),
    )
    query = select(why, func.count()).where(Trajectory.task_id == schedule.task_id, Trajectory.seq > mark)
    return NotCounted(**{reason: count for reason, count in session.execute(query.group_by(why)) if reason})


@dataclass(frozen=True)
class _Learned:
    """What the adapter of a schedule has learned of its task, and what the schedule's jobs were started for so far."""

    dataset_id: uuid.UUID | None
    """The dataset of the adapter's newest version whose weaver was trained on the task, whatever its gate decided."""
    made_at: datetime | None
    newest: int
    """Arrival number of the newest trajectory of the task in it; 0 for none."""
    tried_up_to: int
    tried_at: datetime | None
    """When a job was last started; None if none was."""


def _learned(session: Session, schedules: Sequence[Schedule]) -> dict[uuid.UUID, _Learned]:
    """By the schedule's id."""
    dataset = (
        select(Dataset.id, Dataset.created_at)
        .join(Version, Version.dataset_id == Dataset.id)
        .where(Version.adapter_id == Schedule.adapter_id, Dataset.task_id == Schedule.task_id, trains_weaver())
        .order_by(Version.number.desc())
        .limit(1)
        .lateral("learned")
    )
    newest = (
        select(func.max(Trajectory.seq))
        .join(DatasetItem, DatasetItem.trajectory_id == Trajectory.id)
        .where(DatasetItem.dataset_id == dataset.c.id, Trajectory.task_id == Schedule.task_id)
        .scalar_subquery()
    )
    started = ScheduleRun.schedule_id == Schedule.id, ScheduleRun.outcome == "started"
    tried = select(func.max(ScheduleRun.up_to_seq), func.max(ScheduleRun.at)).where(*started).lateral("tried")
    rows = session.execute(
        select(Schedule.id, dataset.c.id, dataset.c.created_at, newest, tried.c[0], tried.c[1])
        .select_from(Schedule)
        .outerjoin(dataset, true())
        .join(tried, true())
        .where(one_of(Schedule.id, [schedule.id for schedule in schedules]))
    )
    return {
        id_: _Learned(dataset_id, made_at, newest_seq or 0, up_to or 0, at)
        for id_, dataset_id, made_at, newest_seq, up_to, at in rows
    }
