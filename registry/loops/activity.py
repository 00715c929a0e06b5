"""When a loop last got traffic and rewards, how many of its runs wait for a reward, and whether workers work."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry.datasets.snapshots import is_own_and_unrewarded
from registry.jobs import asks_upstream
from registry.models import Exposure, Job, JobEvent, Loop, Run, Trajectory, Version


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
    """When the reward in effect of a trajectory of the task last came or changed; None for never.

    Rewards that came with an upload are none: nobody rewards what is recorded by them. So are those of a judge that are
    kept apart.
    """
    return session.scalar(select(func.max(Trajectory.rewarded_at)).where(Trajectory.task_id == loop.task_id))


def unrewarded_runs(session: Session, loop: Loop, *, after: datetime) -> int:
    """Runs that were recorded after a time and have no reward; demonstrations need none and are not counted."""
    query = select(func.count()).where(Trajectory.task_id == loop.task_id, Trajectory.created_at > after)
    return session.scalar(query.where(is_own_and_unrewarded())) or 0


def works_anywhere(session: Session) -> bool:
    """Whether a worker that lives has a job in hand, of whatever project. Judging by an upstream says nothing of the
    workers that train: it needs no model of ours."""
    query = select(Job.id).where(Job.state == "running", Job.lease_until > func.now(), ~asks_upstream())
    return session.scalars(query.limit(1)).first() is not None


def last_event(session: Session, job: Job) -> datetime:
    """When something last happened to a job; since then it waits."""
    newest = session.scalar(select(func.max(JobEvent.at)).where(JobEvent.job_id == job.id))
    return newest or job.created_at
