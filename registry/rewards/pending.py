"""Feedback and the trajectories that it rewards: given at once to what is written, and waiting for what is not yet.

Feedback names an answer, a run or a session: an agent knows nothing of trajectories. Whoever reports feedback and
whoever writes a run may be two processes at once: each takes its turn at the project's rewards, so that either the
feedback finds the trajectory or the trajectory finds the feedback.
"""

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from registry.models import Feedback, Run, RunCall, TrajectoryReward
from registry.rewards.rewards import lock_to_reward, refresh_rewards, take_turn_alone, take_turn_with_others

SESSION_REACH = timedelta(hours=24)
"""How long before the session's last answer a run of it may have ended to be meant by a reward of the session: it may
be a user's for months."""
MOST_RUNS = 1_000
"""Written runs that one reward of a session reaches, the newest first."""


def give_feedback(session: Session, feedback: Feedback) -> list[uuid.UUID]:
    """Reward what the feedback names and is written already. Returns the trajectories, also where another reward of the
    source stands."""
    take_turn_with_others(session, feedback.project_id)
    named = _written(feedback)
    ids = [feedback.trajectory_id] if named is None else session.scalars(named).all()
    found = [each for each in ids if each is not None]
    _give(session, feedback.project_id, [feedback], found)
    return found


def settle_run(session: Session, run: Run) -> int:
    """Give a run that has just become a trajectory all feedback on it. Returns the number of its rewards.

    Called in the transaction that writes the trajectory, when `run.trajectory_id` names it.
    """
    if run.trajectory_id is None:
        return 0
    take_turn_alone(session, run.project_id)
    session.flush()
    calls = session.execute(
        select(RunCall.completion_id, RunCall.announced_run_id).where(RunCall.run_id == run.id)
    ).all()
    named: list[ColumnElement[bool]] = [
        Feedback.run_id.in_({run.id, *(call.announced_run_id for call in calls if call.announced_run_id)}),
        Feedback.completion_id.in_({call.completion_id for call in calls}),
    ]
    if run.session_id is not None:
        last = _last_answer(run.project_id, Feedback.session_id, Feedback.at)
        named.append(
            and_(
                Feedback.session_id == run.session_id,
                Feedback.at >= run.opened_at,
                last <= run.last_at + SESSION_REACH,
            )
        )
    waiting = select(Feedback).where(Feedback.project_id == run.project_id, Feedback.part_of.is_(None), or_(*named))
    found = session.scalars(waiting.order_by(Feedback.seq)).all()
    return _give(session, run.project_id, found, [run.trajectory_id])


def runs_named(project_id: uuid.UUID, run_id: uuid.UUID) -> Select[uuid.UUID]:
    """Ids of the runs that an answer called so: a run's own id, or the one that was announced for it."""
    announced = select(RunCall.run_id).where(RunCall.announced_run_id == run_id)
    return select(Run.id).where(Run.project_id == project_id, or_(Run.id == run_id, Run.id.in_(announced)))


def _written(feedback: Feedback) -> Select[uuid.UUID | None] | None:
    """Trajectories of the runs that the feedback names; None if it names a trajectory itself."""
    written = select(Run.trajectory_id).where(Run.project_id == feedback.project_id, Run.trajectory_id.is_not(None))
    if feedback.completion_id is not None:
        calls = select(RunCall.run_id).where(RunCall.completion_id == feedback.completion_id)
        return written.where(Run.id.in_(calls))
    if feedback.run_id is not None:
        return written.where(Run.id.in_(runs_named(feedback.project_id, feedback.run_id)))
    if feedback.session_id is not None:
        mine = (
            Run.session_id == feedback.session_id,
            Run.opened_at <= feedback.at,
            Run.last_at >= _last_answer(feedback.project_id, feedback.session_id, feedback.at) - SESSION_REACH,
        )
        return written.where(*mine).order_by(Run.last_at.desc()).limit(MOST_RUNS)
    return None


def _last_answer(project_id: uuid.UUID, session_id: Any, at: Any) -> ScalarSelect[datetime]:
    """When the last answer was given in the runs of a session that had begun at a moment."""
    begun = aliased(Run)
    return (
        select(func.max(begun.last_at))
        .where(begun.project_id == project_id, begun.session_id == session_id, begun.opened_at <= at)
        .scalar_subquery()
    )


def _give(
    session: Session, project_id: uuid.UUID, feedbacks: Sequence[Feedback], trajectory_ids: Collection[uuid.UUID]
) -> int:
    """Give each feedback's reward to the trajectories, in this order; where its source gave one already, that stands.

    Returns the number of new rewards.
    """
    rows = [
        {
            "trajectory_id": trajectory_id,
            "source": feedback.source,
            "completion_id": feedback.completion_id,
            "reward": feedback.reward,
            "comment": "",
            "actor": feedback.actor,
            "feedback_seq": feedback.seq,
            "at": feedback.at,
        }
        for feedback in feedbacks
        for trajectory_id in trajectory_ids
    ]
    if not rows:
        return 0
    lock_to_reward(session, project_id, trajectory_ids)
    given = session.scalars(
        insert(TrajectoryReward)
        .values(rows)
        .on_conflict_do_nothing(index_elements=["trajectory_id", "source", "completion_id"])
        .returning(TrajectoryReward.trajectory_id)
    ).all()
    refresh_rewards(session, project_id, set(given))
    return len(given)
