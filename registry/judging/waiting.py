"""What waits to be judged: trajectories, or groups of them that begin alike."""

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from registry.judging.judges import RELATIVE
from registry.models import Judge, Judgement, Trajectory

Case = tuple[uuid.UUID, ...]
"""Ids of the trajectories that one judgement is about: one, or those that are ranked together."""


@dataclass(frozen=True)
class Wanted:
    """Which trajectories of a task are to be judged."""

    judge: Judge
    task_id: uuid.UUID
    up_to: int
    """Arrival number of the newest."""
    after: int = 0
    """Arrival number of the newest that is not; of a group, one must have come later."""
    unrewarded: bool = False
    """Only those that have no reward yet."""
    held_out: bool = False
    """Whether those that are kept for evaluation are judged, too."""
    again: uuid.UUID | None = None
    """A job; those that got no score before it are judged, too."""


def find_cases(session: Session, wanted: Wanted, limit: int) -> list[Case]:
    """The first `limit` cases, in order of arrival."""
    if wanted.judge.kind != RELATIVE:
        ids = session.scalars(select(Trajectory.id).where(*_waits(wanted)).order_by(Trajectory.seq).limit(limit))
        return [(each,) for each in ids]
    found = session.scalars(_groups(wanted).limit(limit))
    cases = [case for ids in found for case in split_group(ids, wanted.judge.group_size)]
    return cases[:limit]


def is_waiting(session: Session, wanted: Wanted) -> bool:
    """Whether there is anything to judge."""
    if wanted.judge.kind == RELATIVE:
        return session.scalars(_groups(wanted).limit(1)).first() is not None
    return bool(session.scalar(select(exists(select(Trajectory.id).where(*_waits(wanted))))))


def newest(session: Session, task_id: uuid.UUID) -> int:
    """Arrival number of the task's newest trajectory; 0 for none."""
    query = select(Trajectory.seq).where(Trajectory.task_id == task_id)
    return session.scalar(query.order_by(Trajectory.seq.desc()).limit(1)) or 0


def split_group(ids: Sequence[uuid.UUID], most: int) -> list[Case]:
    """Parts of nearly equal sizes, none larger than `most`; one that would stand alone is left for later.

    Five by four are two and three; three by two are two, and one waits.
    """
    parts = math.ceil(len(ids) / most)
    bounds = [part * len(ids) // parts for part in range(parts + 1)]
    split = [tuple(ids[start:end]) for start, end in pairwise(bounds)]
    return [part for part in split if len(part) > 1]


def _waits(wanted: Wanted) -> list[ColumnElement[bool]]:
    known = and_(Judgement.judge_id == wanted.judge.id, Judgement.trajectory_id == Trajectory.id)
    if wanted.again is not None:
        known = and_(known, Judgement.score.is_not(None) | (Judgement.job_id == wanted.again))
    conditions: list[ColumnElement[bool]] = [
        Trajectory.task_id == wanted.task_id,
        Trajectory.seq <= wanted.up_to,
        ~exists(select(Judgement.id).where(known)),
    ]
    if wanted.judge.kind != RELATIVE:
        conditions.append(Trajectory.seq > wanted.after)
    if wanted.unrewarded:
        conditions.append(Trajectory.reward.is_(None))
    if not wanted.held_out:
        conditions.append(Trajectory.held_out.is_(False))
    return conditions


def _groups(wanted: Wanted) -> Select[Any]:
    ids = func.array_agg(aggregate_order_by(Trajectory.id, Trajectory.seq))
    return (
        select(ids)
        .where(*_waits(wanted), Trajectory.beginning_hash.is_not(None))
        .group_by(Trajectory.beginning_hash)
        .having(func.count() > 1, func.max(Trajectory.seq) > wanted.after)
        .order_by(func.min(Trajectory.seq))
    )
