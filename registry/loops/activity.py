"""When an adapter's loop last got traffic and rewards, and how many recorded runs wait for a reward."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry.datasets.snapshots import is_own_and_unrewarded
from registry.models import Exposure, Loop, Run, Trajectory, TrajectoryReward, Version


def last_traffic(session: Session, loop: Loop) -> datetime | None:
    """When the adapter last answered, or a run or trajectory of the task last grew; None for never."""
    versions = select(Version.id).where(Version.adapter_id == loop.adapter_id)
    answered = session.scalar(select(func.max(Exposure.at)).where(Exposure.version_id.in_(versions)))
    arrived = session.scalar(
        select(Trajectory.created_at).where(Trajectory.task_id == loop.task_id).order_by(Trajectory.seq.desc()).limit(1)
    )
    recorded = session.scalar(select(func.max(Run.last_at)).where(Run.task_id == loop.task_id))
    return max((moment for moment in (answered, arrived, recorded) if moment is not None), default=None)


def last_reward(session: Session, loop: Loop) -> datetime | None:
    """When a trajectory of the task last got a reward; None for never."""
    given = select(func.max(TrajectoryReward.at)).join(Trajectory, Trajectory.id == TrajectoryReward.trajectory_id)
    return session.scalar(given.where(Trajectory.task_id == loop.task_id))


def unrewarded_runs(session: Session, loop: Loop, *, after: datetime) -> int:
    """Runs that were recorded after a time and have no reward; demonstrations need none and are not counted."""
    query = select(func.count()).where(Trajectory.task_id == loop.task_id, Trajectory.created_at > after)
    return session.scalar(query.where(is_own_and_unrewarded())) or 0
