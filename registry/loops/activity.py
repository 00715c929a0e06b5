"""When an adapter's loop last got traffic and rewards, and how many recorded runs wait for a reward."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry.models import Exposure, Loop, Trajectory, Version


def last_traffic(session: Session, loop: Loop) -> datetime | None:
    """When the adapter last answered, or a trajectory of the task last arrived; None for never."""
    versions = select(Version.id).where(Version.adapter_id == loop.adapter_id)
    answered = session.scalar(select(func.max(Exposure.at)).where(Exposure.version_id.in_(versions)))
    arrived = session.scalar(
        select(Trajectory.created_at).where(Trajectory.task_id == loop.task_id).order_by(Trajectory.seq.desc()).limit(1)
    )
    return max((moment for moment in (answered, arrived) if moment is not None), default=None)


def last_reward(session: Session, loop: Loop) -> datetime | None:
    """When a trajectory of the task last got a reward; None for never."""
    return session.scalar(
        select(func.max(Trajectory.created_at)).where(
            Trajectory.task_id == loop.task_id, Trajectory.reward.is_not(None)
        )
    )


def unrewarded_runs(session: Session, loop: Loop, *, after: datetime) -> int:
    """Runs that were recorded after a time and have no reward; demonstrations need none and are not counted."""
    query = select(func.count()).where(Trajectory.task_id == loop.task_id, Trajectory.created_at > after)
    return session.scalar(query.where(Trajectory.reward.is_(None), Trajectory.success.is_(None))) or 0
