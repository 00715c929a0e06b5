"""Runs become trajectories, by the rules of the import: checked, counted in tokens, put on a side.

An own turn is learned from. What came along in a request is context, and so is an own turn whose words training could
not learn from: empty, cut off at its limit, a call of a function that was not offered. Its tokens are kept beside it as
they were sampled. A run of which nothing can be learned is refused: it stays, with the code and the reason.

Runs are never the same one: a run's id is the trajectory's `trajectory_id`.

No run ends while an answer of it may wait in a spool: its silence counts up to where every recorder has moved what it
took (`registry.recordings.recorders`), and not up to now.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import ColumnElement, DateTime, and_, case, delete, func, literal_column, or_, select, text, update
from sqlalchemy.orm import Session

from registry.clock import FARTHEST_AHEAD, utc_now
from registry.database import may_pass
from registry.errors import InvalidTrajectory
from registry.models import Run, RunTurn
from registry.models.recordings import IDLE_AT, IS_CLOSING, IS_OPEN, IS_UNFINISHED
from registry.recordings.recorders import all_moved_until
from registry.recordings.sampled import sampled_turns
from registry.rewards.pending import settle_run
from registry.trajectories.conversations import unlearnable_turns
from registry.trajectories.finish_reasons import is_unfinished
from registry.trajectories.formats import chat
from registry.trajectories.imports import TokenLimit, import_batch
from registry.trajectories.records import lock_trajectories

log = structlog.get_logger()

LATE = timedelta(seconds=3)
"""How far everything must stand in runs behind the end of one: more than the clocks of two processes differ by."""


@dataclass(frozen=True)
class ClosedRun:
    run_id: uuid.UUID
    project_id: uuid.UUID
    trajectory_id: uuid.UUID | None
    """None: it was refused."""


def bring_back(session: Session, now: datetime) -> int:
    """Let runs whose last answer or end lies ahead, by a clock that has been set back since, be silent or end from now
    on. Returns how many there were."""
    ahead = now + FARTHEST_AHEAD
    late = or_(Run.last_at > ahead, and_(text(IS_CLOSING), Run.closing_at > ahead))
    past = {
        "last_at": func.least(Run.last_at, now),
        "closing_at": case((Run.closing_at > now, now), else_=Run.closing_at),
    }
    back = update(Run).where(text(IS_UNFINISHED), late).values(past).returning(Run.id)
    return len(session.scalars(back.execution_options(synchronize_session=False)).all())


def due_projects(session: Session, until: datetime | None = None) -> list[uuid.UUID]:
    """Projects that have runs to close. `until` is as for `close_due`. Asked every second by every process: its cost is
    that of what is due, however many runs are open."""
    return list(session.scalars(select(Run.project_id).where(_is_due(until or all_moved_until(session))).distinct()))


def close_due(
    session: Session, project_id: uuid.UUID, tokens: TokenLimit, *, limit: int = 10, until: datetime | None = None
) -> list[ClosedRun]:
    """Make trajectories of some of a project's runs that are due. Fewer than `limit` come back if none is left.

    Args:
        until: all that was answered before stands in runs. None asks the recorders.
    """
    until = until or all_moved_until(session)  # before the runs are read: what was moved by then is among them
    lock_trajectories(session, project_id)  # first, as a deletion does
    rows = session.scalars(
        select(Run)
        .where(Run.project_id == project_id, _is_due(until))
        .order_by(Run.last_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    return [close_run(session, run, tokens) for run in rows]


def _is_due(until: datetime) -> ColumnElement[bool]:
    idle_at: ColumnElement[datetime] = literal_column(IDLE_AT, DateTime(timezone=True))
    return or_(
        and_(text(IS_OPEN), idle_at <= until),
        and_(text(IS_CLOSING), Run.closing_at <= until - LATE),
    )


def close_run(session: Session, run: Run, tokens: TokenLimit) -> ClosedRun:
    """Make a trajectory of a run that is locked."""
    run.close_reason = run.close_reason or "idle"
    run.state, run.closed_at = "closed", utc_now()
    turns = list(session.scalars(select(RunTurn).where(RunTurn.run_id == run.id).order_by(RunTurn.place)))
    messages = conversation(turns)
    try:
        with session.begin_nested():
            trajectory_id = _store(session, run, turns, messages, tokens)
    except InvalidTrajectory as refusal:
        return _refused(run, refusal.code, str(refusal))
    except Exception as error:  # one run's trouble is never the others'
        if isinstance(error, OSError) or may_pass(error):
            raise
        log.error("a run could not be closed", run=str(run.id), error=type(error).__name__)
        return _refused(run, "error", f"{type(error).__name__}: {error}")
    run.trajectory_id = trajectory_id
    # The trajectory has it all now.
    session.execute(delete(RunTurn).where(RunTurn.run_id == run.id))
    settle_run(session, run)
    return ClosedRun(run.id, run.project_id, trajectory_id)


def _refused(run: Run, code: str, reason: str) -> ClosedRun:
    run.refusal_code, run.refusal_reason = code, reason
    return ClosedRun(run.id, run.project_id, None)


def conversation(turns: Sequence[RunTurn]) -> list[Any]:
    """The messages of a run, with the weights of its turns. Of a turn the last message is the answer; what a request
    put into the assistant's mouth before it is context."""
    return [
        {**message, "weight": int(turn.kind == "own" and number == len(turn.messages))}
        if message["role"] == "assistant"
        else message
        for turn in turns
        for number, message in enumerate(turn.messages, 1)
    ]


def _store(session: Session, run: Run, turns: Sequence[RunTurn], messages: list[Any], tokens: TokenLimit) -> uuid.UUID:
    cut = _cut_off(turns)
    messages = [{**each, "weight": 0} if number in cut else each for number, each in enumerate(messages)]
    faults = cut | unlearnable_turns(messages, run.tools)
    messages = [{**each, "weight": 0} if number in faults else each for number, each in enumerate(messages)]
    draft = chat.read(
        {
            "messages": messages,
            "tools": run.tools,
            "task": run.task.name,
            "trajectory_id": str(run.id),
            "session_id": run.session_id,
            "adapter_version": _version(turns),
            "metadata": run.details | _recorded(run, turns, faults),
        }
    )
    draft = replace(draft, sampled=sampled_turns(turns))
    [result] = import_batch(session, run.project_id, [(1, draft)], default_task=None, tokens=tokens)
    if result.id is None:
        raise InvalidTrajectory(result.code or "refused", result.reason or "it was refused")
    return result.id


def _cut_off(turns: Sequence[RunTurn]) -> dict[int, str]:
    """Own turns that ended at a limit, by a filter or by a fault: their words would teach to stop there."""
    found, place = {}, 0
    for turn in turns:
        place += len(turn.messages)
        if turn.kind == "own" and is_unfinished(turn.finish_reason):
            found[place - 1] = "cut_off"
    return found


def _version(turns: Sequence[RunTurn]) -> str | None:
    """The version that answered, if it was one."""
    models = {turn.model for turn in turns if turn.model is not None}
    return models.pop() if len(models) == 1 else None


def _recorded(run: Run, turns: Sequence[RunTurn], faults: dict[int, str]) -> dict[str, Any]:
    models = sorted({turn.model for turn in turns if turn.model is not None})
    recorded: dict[str, Any] = {"run": str(run.id), "closed": run.close_reason, "models": models}
    if faults:
        recorded["not_learned"] = [{"message": number, "code": code} for number, code in sorted(faults.items())]
    user = {"user": run.user} if run.user is not None else {}
    return {**user, "recorded": recorded}
