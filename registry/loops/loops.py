"""Loops: found, listed, paused, resumed, deleted. `registry.loops.setup` makes them.

A loop has the name of its adapter, which has one at most.
"""

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from registry.clock import utc_now
from registry.errors import LoopNotFound
from registry.json_text import show
from registry.loops.conditions import find_state
from registry.loops.findings import Surroundings
from registry.loops.judging import restore_judge
from registry.loops.recording import restore_recording
from registry.loops.states import enter, record
from registry.models import Adapter, Loop, LoopChange
from registry.names import is_valid_name
from registry.schedules.schedules import Change, change_schedule, delete_schedule
from registry.versions.champion import champion


def get_loop(session: Session, project_id: uuid.UUID, name: str, *, lock: bool = False) -> Loop:
    """The loop of the adapter of that name. Raises LoopNotFound."""
    query = (
        select(Loop)
        .join(Adapter, Adapter.id == Loop.adapter_id)
        .where(Loop.project_id == project_id, Adapter.name == name, Loop.deleted_at.is_(None))
        .options(joinedload(Loop.adapter), joinedload(Loop.task), joinedload(Loop.schedule))
    )
    if lock:
        query = query.with_for_update(of=Loop).execution_options(populate_existing=True)
    found = session.scalars(query).one_or_none() if is_valid_name(name) else None
    if found is None:
        raise LoopNotFound(f"no adapter named {show(name)} with a loop in this project; `GET /v1/loops` lists them")
    return found


def list_loops(session: Session, project_id: uuid.UUID) -> list[Loop]:
    """Sorted by name."""
    query = (
        select(Loop)
        .join(Adapter, Adapter.id == Loop.adapter_id)
        .where(Loop.project_id == project_id, Loop.deleted_at.is_(None))
        .options(joinedload(Loop.adapter), joinedload(Loop.task), joinedload(Loop.schedule))
    )
    return list(session.scalars(query.order_by(Adapter.name)))


def pause_loop(session: Session, project_id: uuid.UUID, name: str, around: Surroundings, *, actor: str) -> Loop:
    """Start no more trainings until it is resumed. Recording, a running job and a running canary go on.

    Pausing twice is harmless. Raises LoopNotFound.
    """
    loop = get_loop(session, project_id, name, lock=True)
    if loop.paused_at is None:
        loop.paused_at = utc_now()
    enter(session, loop, find_state(session, loop, around), around, actor=actor)
    session.flush()
    return loop


def resume_loop(session: Session, project_id: uuid.UUID, name: str, around: Surroundings, *, actor: str) -> Loop:
    """Let it go on: failures, and hours without traffic or rewards, are counted anew from now. Raises LoopNotFound."""
    loop = get_loop(session, project_id, name, lock=True)
    # Also where its row says that it runs: what holds it since may not have been looked at yet.
    loop.paused_at, loop.counted_from = None, around.now
    if loop.schedule.paused_at is not None and loop.schedule.deleted_at is None:
        change_schedule(session, project_id, loop.schedule.name, Change(paused=False), actor=actor)
    enter(session, loop, find_state(session, loop, around), around, actor=actor)
    session.flush()
    return loop


def delete_loop(session: Session, project_id: uuid.UUID, name: str, *, actor: str) -> tuple[Loop, list[str]]:
    """Delete a loop with its schedule, and take its recording policy back. Returns it, and what stays, for people.

    Raises:
        LoopNotFound.
    """
    loop = get_loop(session, project_id, name, lock=True)
    answers = f"its versions and its champion; model {name!r} answers as before"
    if champion(session, loop.adapter) is None:
        answers = f"which has no champion: model {name!r} is refused from now on, ask for 'base'"
    stays = [
        f"adapter {name}, {answers}",
        f"task {loop.task.name} and its trajectories",
        f"the settings of {name}'s gate and canary, and its retention",
        "jobs, gates and routes, with their history; a running job and a live canary go on",
    ]
    if loop.schedule.deleted_at is None:
        delete_schedule(session, project_id, loop.schedule.name, actor=actor)
    stays += restore_recording(session, loop, actor=actor) + restore_judge(session, loop)
    loop.deleted_at = utc_now()
    record(session, loop, "deleted", actor)
    return loop, stays


def list_changes(session: Session, loop: Loop, *, before: int | None, limit: int) -> list[LoopChange]:
    """Newest first.

    Args:
        before: the `seq` of the last change already seen.
    """
    query = select(LoopChange).where(LoopChange.loop_id == loop.id)
    if before is not None:
        query = query.where(LoopChange.seq < before)
    return list(session.scalars(query.order_by(LoopChange.seq.desc()).limit(limit)))
