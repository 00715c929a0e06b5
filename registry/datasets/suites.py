"""Suites: the held-out items of a task, frozen as a versioned list so that two scores can be compared."""

import hashlib
import uuid
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Row, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from registry.database import one_of
from registry.datasets.snapshots import is_own_and_unrewarded
from registry.job_requests import GOOD_REWARD
from registry.models import DatasetItem, Suite, SuiteItem, Task, Trajectory

MAX_ITEMS = 500
"""Most items of one suite. Items are taken in the order of their hashes, so a growing task keeps most of its items."""

JUDGED_BY = "budgets by item, calls and silence judged"
"""How items are judged, a part of every suite's hash. Change it with whatever changes the scores of the same answers:
what was scored before is then not compared with what is scored after, but scored again on a new suite."""


def freeze_suite(session: Session, task: Task, *, max_items: int = MAX_ITEMS) -> Suite | None:
    """The suite of the task's held-out trajectories as they are now; None if there is none.

    The newest suite is returned again while nothing was added. Failed trajectories are held out too, but are no
    reference for an answer, and so no items. A trajectory that begins like a trained one is no item either: rows from
    before migrations 0007 and 0011 may be held out and begin so.

    A deletion of items waits until the suite is frozen; what one has just deleted is no item.
    """
    # Not a lock of the key: imports and deletions write rows that name the task, and a deletion may hold the items.
    session.execute(select(Task.id).where(Task.id == task.id).with_for_update(key_share=True))
    rows = _locked_items(session, task, max_items)
    if not rows:
        return None
    listed = "\n".join([JUDGED_BY, *(row.content_hash for row in rows)])
    while True:
        content_hash = hashlib.sha256(listed.encode()).hexdigest()
        known = session.scalars(
            select(Suite).where(Suite.task_id == task.id, Suite.content_hash == content_hash)
        ).one_or_none()
        if known is None:
            break
        if _items_left(session, known) == known.items:
            return known
        # One of its items was deleted and sent again; the suite that lost it stays as it is, for its scores.
        listed += f"\nafter suite {known.number}"
    number = session.scalar(select(func.coalesce(func.max(Suite.number), 0)).where(Suite.task_id == task.id)) or 0
    suite = Suite(task_id=task.id, number=number + 1, content_hash=content_hash, items=len(rows))
    session.add(suite)
    session.flush()
    session.add_all(SuiteItem(suite_id=suite.id, place=place, trajectory_id=row.id) for place, row in enumerate(rows))
    session.flush()
    return suite


def newest_suites(session: Session, task: Task, limit: int) -> list[Suite]:
    """The suites of a task, newest first."""
    return list(
        session.scalars(select(Suite).where(Suite.task_id == task.id).order_by(Suite.number.desc()).limit(limit))
    )


def _locked_items(session: Session, task: Task, max_items: int) -> Sequence[Row[uuid.UUID, str]]:
    """(id, content hash) of the items, by hash, locked against deletion in the order in which a deletion locks them."""
    query = (
        select(Trajectory.id, Trajectory.content_hash)
        .where(
            Trajectory.task_id == task.id,
            is_reference(),
            Trajectory.beginning_hash.not_in(_learned_beginnings(task)),
        )
        .order_by(Trajectory.content_hash)
        .limit(max_items)
    )
    while True:
        rows = session.execute(query).all()
        locking = select(Trajectory.id).where(one_of(Trajectory.id, [row.id for row in rows])).order_by(Trajectory.id)
        if len(session.scalars(locking.with_for_update(read=True, key_share=True)).all()) == len(rows):
            return rows


def is_reference() -> ColumnElement[bool]:
    """Whether a trajectory is held out, and its last answer a right one to compare others with."""
    unmarked_success = and_(
        Trajectory.success.is_(None), or_(Trajectory.reward.is_(None), Trajectory.reward >= GOOD_REWARD)
    )
    return and_(Trajectory.held_out, ~is_own_and_unrewarded(), or_(Trajectory.success.is_(True), unmarked_success))


def _learned_beginnings(task: Task) -> Select[str | None]:
    """Beginnings of the task's trajectories that are in datasets."""
    return (
        select(Trajectory.beginning_hash)
        .join(DatasetItem, DatasetItem.trajectory_id == Trajectory.id)
        .where(Trajectory.task_id == task.id, Trajectory.beginning_hash.is_not(None))
    )


def _items_left(session: Session, suite: Suite) -> int:
    return session.scalar(select(func.count()).where(SuiteItem.suite_id == suite.id)) or 0


def suite_trajectories(session: Session, suite_id: uuid.UUID) -> list[Trajectory]:
    """The items of a suite, by place."""
    return list(
        session.scalars(
            select(Trajectory)
            .join(SuiteItem, SuiteItem.trajectory_id == Trajectory.id)
            .where(SuiteItem.suite_id == suite_id)
            .order_by(SuiteItem.place)
        )
    )
