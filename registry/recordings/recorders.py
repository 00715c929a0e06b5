"""The recorders that there are, and up to when all that was answered stands in runs: the clock that runs end by.

Answers wait in files before they stand in runs, in each process for as long as that takes. A run that seems to be
silent may go on in another process's file. So runs end by the time up to which *every* recorder has moved what it took.

A recorder has a row from before its first answer on, and says about once a second how far it is. The row of a process
that was killed, or that ended with answers left, stays as it is, and holds runs open, until another process of its
machine has taken those over. Of one that nobody has spoken for in `LOST_AFTER` nothing is expected any more: its
machine is gone with its files, or can't reach the database. Nor is anything of one that says itself that it is stuck:
it has moved nothing in that time, though the database was there.

Two clocks: how far a recorder is, is compared with when its answers were given, so both are by its own. When it was
seen is compared by others, so that is by the database's.
"""

import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import DateTime, delete, extract, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.models import LiveRecorder
from registry.recordings.counts import add_counts

LOST = "lost"
LOST_AFTER = timedelta(minutes=5)
"""Silence of a recorder, or standstill, that ends the waiting for it. Longer than a machine takes to start again."""

_NOW = func.clock_timestamp(type_=DateTime(timezone=True))
_IS_LOST = LiveRecorder.seen_at < _NOW - LOST_AFTER
_IS_AWAITED = ~_IS_LOST, ~LiveRecorder.is_stuck


def say_moved(
    session: Session,
    name: str,
    moved_until: datetime,
    *,
    waiting: Mapping[uuid.UUID, int] | None = None,
    is_stuck: bool = False,
) -> None:
    """Say that all that a recorder took before `moved_until` stands in runs, and that it will take nothing of before.

    Args:
        name: of its spool.
        moved_until: by the clock of its process.
        waiting: how many answers it has taken and not moved, by project.
        is_stuck: whether it moves nothing: the others wait for it no longer.
    """
    listed = {str(project): count for project, count in (waiting or {}).items()}
    row = insert(LiveRecorder).values(
        name=name, moved_until=moved_until, seen_at=_NOW, waiting=listed, is_stuck=is_stuck
    )
    newer = {each: row.excluded[each] for each in ("moved_until", "waiting", "is_stuck")} | {"seen_at": _NOW}
    session.execute(row.on_conflict_do_update(index_elements=["name"], set_=newer))


def speak_for(session: Session, name: str, oldest: datetime) -> None:
    """Say that a dead recorder's answers are being moved. `oldest` is when the first of them was given: one that was
    given up already is waited for again."""
    row = insert(LiveRecorder).values(name=name, moved_until=oldest, seen_at=_NOW)
    newer = {"seen_at": _NOW, "is_stuck": False}
    session.execute(row.on_conflict_do_update(index_elements=["name"], set_=newer))


def remove_recorder(session: Session, name: str) -> None:
    """Say that a recorder has ended, and all that it took stands in runs. Harmless when repeated."""
    session.execute(delete(LiveRecorder).where(LiveRecorder.name == name))


def forget_lost(session: Session) -> dict[str, int]:
    """Remove the rows of lost recorders, and count what waited in them as lost. Returns how many answers that were, by
    the recorder's name."""
    columns = LiveRecorder.name, LiveRecorder.waiting
    found = session.execute(delete(LiveRecorder).where(_IS_LOST).returning(*columns)).all()
    counts: Counter[tuple[uuid.UUID, str]] = Counter()
    for row in found:
        counts.update({(uuid.UUID(project), LOST): count for project, count in row.waiting.items()})
    add_counts(session, counts)
    return {row.name: sum(row.waiting.values()) for row in found}


def all_moved_until(session: Session) -> datetime:
    """All answers given before stand in runs, but those that nobody waits for any more; now if there is no recorder.
    Whoever reads runs afterwards sees them."""
    return session.scalar(select(func.min(LiveRecorder.moved_until)).where(*_IS_AWAITED)) or utc_now()


def seconds_behind(session: Session) -> float:
    """How far behind now the awaited recorder is that is furthest behind. One that keeps up is about a second."""
    behind = extract("epoch", _NOW - func.min(LiveRecorder.moved_until))
    return max(0.0, float(session.scalar(select(behind).where(*_IS_AWAITED)) or 0.0))


def count_stuck(session: Session, project_id: uuid.UUID) -> int:
    """A project's answers that wait in recorders which are stuck."""
    rows = session.scalars(select(LiveRecorder.waiting).where(LiveRecorder.is_stuck))
    return sum(waiting.get(str(project_id), 0) for waiting in rows)
