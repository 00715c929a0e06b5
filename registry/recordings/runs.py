"""Runs as they are read, and forgotten. `registry.recordings.joining` makes them, `closing` ends them."""

import uuid
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Uuid, any_, delete, func, literal, or_, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, joinedload

from registry.database import one_of
from registry.errors import RunNotFound
from registry.models import Run, RunCall, RunTurn, Trajectory
from registry.models.recordings import IS_UNFINISHED
from registry.recordings.closing import conversation


def list_runs(
    session: Session,
    project_id: uuid.UUID,
    *,
    task: str | None = None,
    session_id: str | None = None,
    state: str | None = None,
    completion_id: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Run]:
    """Newest first; `before` is the `seq` of the last one already seen."""
    query = select(Run).where(Run.project_id == project_id)
    if task is not None:
        query = query.where(Run.task.has(name=task))
    if session_id is not None:
        query = query.where(Run.session_id == session_id)
    if state == "refused":
        query = query.where(Run.refusal_code.is_not(None))
    elif state is not None:
        query = query.where(Run.state == state)
        if state != "closed":
            query = query.where(text(IS_UNFINISHED))  # they are few, and an index has no others
    if completion_id is not None:
        query = query.where(Run.id.in_(select(RunCall.run_id).where(RunCall.completion_id == completion_id)))
    if before is not None:
        query = query.where(Run.seq < before)
    return list(session.scalars(query.options(joinedload(Run.task)).order_by(Run.seq.desc()).limit(limit)))


def get_run(session: Session, project_id: uuid.UUID, run_id: uuid.UUID) -> Run:
    """A run by its id, or by the one that an answer named before it was decided where it goes.

    Raises:
        RunNotFound: the project has none.
    """
    mine = select(Run).where(Run.project_id == project_id).options(joinedload(Run.task))
    run = session.scalars(mine.where(Run.id == run_id)).one_or_none()
    if run is None:
        named = select(RunCall.run_id).where(RunCall.announced_run_id == run_id)
        run = session.scalars(mine.where(Run.id.in_(named)).order_by(Run.seq).limit(1)).one_or_none()
    if run is None:
        raise RunNotFound(f"no run {run_id} in this project; GET /v1/runs lists them")
    return run


def calls_of(session: Session, run: Run) -> list[RunCall]:
    return list(session.scalars(select(RunCall).where(RunCall.run_id == run.id).order_by(RunCall.place, RunCall.at)))


def messages_of(session: Session, run: Run) -> list[Any]:
    """The run's messages, whether it is a trajectory yet or not."""
    if run.trajectory_id is not None:
        return session.get_one(Trajectory, run.trajectory_id).messages
    turns = session.scalars(select(RunTurn).where(RunTurn.run_id == run.id).order_by(RunTurn.place))
    return conversation(list(turns))


def count_runs(session: Session, project_id: uuid.UUID) -> dict[str, int]:
    """Runs of a project by state; refused ones apart from the other closed ones."""
    mine = select(func.count()).where(Run.project_id == project_id)
    refused = Run.refusal_code.is_not(None)
    # Each by an index of its own: most runs are closed, and nobody reads all of them to find the few that are not.
    unfinished = select(Run.state, func.count()).where(Run.project_id == project_id, text(IS_UNFINISHED), ~refused)
    found = {row[0]: row[1] for row in session.execute(unfinished.group_by(Run.state))}
    found["refused"] = session.scalars(mine.where(refused)).one()
    found["closed"] = session.scalars(mine).one() - sum(found.values())
    return {state: count for state, count in sorted(found.items()) if count}


def count_unwritten(session: Session, project_id: uuid.UUID, sessions: Collection[str], user: str | None) -> int:
    """How many runs that are no trajectories `forget_runs` would remove."""
    mine = Run.project_id == project_id, Run.trajectory_id.is_(None), _owned(sessions, user)
    return session.scalars(select(func.count()).select_from(Run).where(*mine)).one()


def forget_runs(
    session: Session,
    project_id: uuid.UUID,
    trajectory_ids: Collection[uuid.UUID],
    sessions: Collection[str],
    user: str | None,
) -> None:
    """Remove the runs of these trajectories, sessions and of this user, with all their content. That an answer was
    recorded stays known by its id, so that no spool brings it back."""
    gone = or_(Run.trajectory_id == any_(literal(list(trajectory_ids), ARRAY(Uuid))), _owned(sessions, user))
    session.execute(delete(Run).where(Run.project_id == project_id, gone))


def _owned(sessions: Collection[str], user: str | None) -> ColumnElement[bool]:
    of_session = one_of(Run.session_id, sessions)
    return of_session if user is None else or_(of_session, Run.user == user)


def announce_run(session: Session, project_id: uuid.UUID, completion_ids: Sequence[str], run_id: uuid.UUID) -> None:
    """Let another id name the runs of these answers too, where none was announced for them. Feedback finds both."""
    mine = RunCall.project_id == project_id, RunCall.completion_id.in_(completion_ids)
    session.execute(
        update(RunCall)
        .where(*mine, RunCall.announced_run_id.is_(None), RunCall.run_id.is_not(None))
        .values(announced_run_id=run_id)
    )
