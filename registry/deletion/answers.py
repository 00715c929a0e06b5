"""What a deletion takes from answers and from the feedback on them: whose they were, and what was said of them.

Rewards and counts stay, so that what a route decided by them can still be checked.
"""

import secrets
import uuid
from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from registry.database import one_of
from registry.deletion.erasure import may_erase
from registry.models import Exposure, Feedback, Run, RunCall, Trajectory, TrajectoryReward


def count_answers(session: Session, project_id: uuid.UUID, sessions: Collection[str]) -> tuple[int, int]:
    """How many answers were given in the sessions, and how much feedback was given on whole ones."""
    answers = select(func.count()).where(Exposure.project_id == project_id, one_of(Exposure.session_id, sessions))
    of_sessions = one_of(Feedback.session_id, sessions), Feedback.part_of.is_(None)
    feedback = select(func.count()).where(Feedback.project_id == project_id, *of_sessions)
    return session.scalars(answers).one(), session.scalars(feedback).one()


def forget_answers(
    session: Session,
    project_id: uuid.UUID,
    *,
    sessions: Collection[str],
    user: str | None,
    trajectory_ids: Collection[uuid.UUID],
) -> None:
    """Remove the sessions' ids from answers and feedback, and the comments on what is deleted.

    Called while the trajectories and runs are still there: they say which feedback is on them.
    """
    gone = one_of(Trajectory.id, trajectory_ids)
    mine = Exposure.project_id == project_id, one_of(Exposure.session_id, sessions)
    whose: list[ColumnElement[bool]] = [
        one_of(Run.session_id, sessions),
        Run.trajectory_id.in_(select(Trajectory.id).where(gone)),
    ]
    if user is not None:
        whose.append(Run.user == user)
    runs = select(Run.id).where(Run.project_id == project_id, or_(*whose))
    calls = select(RunCall.completion_id).where(RunCall.run_id.in_(runs))
    announced = select(RunCall.announced_run_id).where(RunCall.run_id.in_(runs), RunCall.announced_run_id.is_not(None))
    rewards = select(TrajectoryReward.feedback_seq).where(
        one_of(TrajectoryReward.trajectory_id, trajectory_ids), TrajectoryReward.feedback_seq.is_not(None)
    )
    about = or_(
        Feedback.completion_id.in_(select(Exposure.completion_id).where(*mine)),
        Feedback.completion_id.in_(calls),
        Feedback.run_id.in_(runs),
        Feedback.run_id.in_(announced),
        one_of(Feedback.session_id, sessions),
        Feedback.seq.in_(rewards),
    )
    with may_erase(session):
        session.execute(
            update(Feedback).where(Feedback.project_id == project_id, about, Feedback.comment != "").values(comment="")
        )
        for column in (Feedback.unit, Feedback.session_id):
            session.execute(
                update(Feedback)
                .where(Feedback.project_id == project_id, one_of(column, sessions))
                .values({column: _random_name(column)})
            )
        session.execute(update(Exposure).where(*mine).values(session_id=None))


def _random_name(column: InstrumentedAttribute[Any]) -> Any:
    """Another name for equal ones: a session stays one unit of a route's comparison. Nobody knows the salt once this
    has run, so guesses at the old name can't be tried, and a session that comes back and is deleted again is another
    unit."""
    digest = func.encode(func.sha256(func.convert_to(secrets.token_hex(32) + column, "UTF8")), "hex")
    return func.concat("erased-", digest)
