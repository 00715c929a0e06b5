"""The state of a loop as its row has it, and each change of it: a row of its own, and an event for webhooks.

The beat looks at every loop in each tick (`check_loop`). A schedule that is due asks again, in the transaction that
would create the job (`why_held`): between two looks of the beat, a third version may have been rejected.
"""

import uuid
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.loops.attempts import live_training
from registry.loops.conditions import find_hold, find_state
from registry.loops.findings import RUNNING, Finding, Surroundings
from registry.models import Loop, LoopChange, Schedule
from registry.outbox import emit
from registry.serving.routes import live_route

BEAT = "beat"
"""The actor of changes of state that nobody asked for."""


def loops_to_check(session: Session) -> list[uuid.UUID]:
    query = select(Loop.id).where(Loop.deleted_at.is_(None))
    return list(session.scalars(query.order_by(Loop.created_at, Loop.id)))


def looped_adapters(session: Session) -> list[uuid.UUID]:
    """Adapters that have a loop: their retention is applied without being asked for."""
    return list(session.scalars(select(Loop.adapter_id).where(Loop.deleted_at.is_(None))))


def check_loop(session: Session, loop_id: uuid.UUID, around: Surroundings) -> Loop | None:
    """Find the loop's state and record it if it has changed. None if another beat, or a person, has the row now."""
    query = select(Loop).where(Loop.id == loop_id, Loop.deleted_at.is_(None))
    loop = session.scalars(query.with_for_update(skip_locked=True, of=Loop)).one_or_none()
    if loop is None:
        return None
    loop.checked_at = around.now
    # Not ahead of now, by a clock that has been set back: no failure and no silence would count until then.
    loop.counted_from = min(loop.counted_from, around.now)
    enter(session, loop, find_state(session, loop, around), around, actor=BEAT)
    return loop


def enter(session: Session, loop: Loop, found: Finding, around: Surroundings, *, actor: str) -> LoopChange | None:
    """Let a loop, whose row the caller has locked, be in a state; None if it is in it already.

    What the state says may change without a change of the state: hours pass.
    """
    changed = (loop.state, loop.held) != (found.state, found.held)
    before, loop.reason, loop.advice = loop.state, found.reason, found.advice
    if not changed:
        return None
    loop.state, loop.held, loop.since = found.state, found.held, around.now
    kind = "resumed" if found == RUNNING else "paused" if found.state == "paused" else "stopped"
    change = record(session, loop, kind, actor, before=before, reason=found.reason, evidence={"held": found.held})
    _emit(session, loop, "loop.resumed" if found == RUNNING else "loop.stopped", before)
    return change


def why_held(session: Session, schedule: Schedule, around: Surroundings) -> str | None:
    """Why the loop of a schedule lets no training start now; None if it does, or the schedule is no loop's."""
    query = select(Loop).where(Loop.schedule_id == schedule.id, Loop.deleted_at.is_(None))
    loop = session.scalars(query).one_or_none()
    if loop is None:
        return None
    found = find_hold(session, loop, around)
    if found is not None:
        return f"the loop is held ({found.state}): {found.reason}"
    job = live_training(session, loop)
    if job is not None and job.id != schedule.last_job_id:
        return f"job {job.id} learns {loop.task.name} already and is still {job.state}"
    route = live_route(session, loop.adapter)
    if route is None or route.kind != "canary":
        return None
    name, number = loop.adapter.name, route.arms[-1].version.number
    undecided = f"the canary of {name}@{number} is not decided"
    if route.promotion == "never":
        undecided += f", and `memgen promote {name} {number}` or `memgen route end {name}` is a person's to say"
    return f"{undecided}; what is learned next goes on from its result"


def record(
    session: Session,
    loop: Loop,
    kind: str,
    actor: str,
    *,
    before: str | None = None,
    reason: str = "",
    evidence: dict[str, Any] | None = None,
) -> LoopChange:
    """Append to the loop's history.

    Args:
        before: the state that it leaves; None where the state stays as it is.
    """
    change = LoopChange(
        loop_id=loop.id,
        kind=kind,
        from_state=before,
        to_state=None if before is None else loop.state,
        actor=actor,
        reason=reason,
        evidence=evidence or {},
    )
    session.add(change)
    session.flush()
    return change


def _emit(session: Session, loop: Loop, event: str, before: str) -> None:
    """Without the reason: it may quote what a training said of its data."""
    data = {
        "loop": loop.adapter.name,
        "task": loop.task.name,
        "state": loop.state,
        "was": before,
        "held": loop.held,
        "advice": loop.advice,
    }
    emit(session, loop.project_id, event, data)
