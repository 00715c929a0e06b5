"""The tick of a schedule: is it due, is there something to learn, may a job start? What came of it is a row.

Any number of beats may tick at the same time: a schedule is taken under its row's lock, and the second beat finds it
done. Due times that passed while no beat ran are made up for once.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from registry import jobs
from registry.clock import FARTHEST_AHEAD
from registry.models import Exposure, Schedule, ScheduleRun, Trajectory
from registry.schedules.cron import Cron
from registry.schedules.schedules import Idle, NewTrajectories, training_request, when_of
from registry.schedules.waiting import Waiting, not_counted, waiting_for
from registry.versions.champion import champion
from registry.versions.state import why_not_parent
from registry.wording import counted


@dataclass(frozen=True)
class _Due:
    at: datetime
    missed: int
    waiting: Waiting


def schedules_to_ask(session: Session, now: datetime) -> list[uuid.UUID]:
    """Schedules that may be due: cron expressions whose time has come, and all of the other kinds."""
    query = select(Schedule.id).where(
        Schedule.paused_at.is_(None),
        Schedule.deleted_at.is_(None),
        or_(Schedule.next_run_at.is_(None), Schedule.next_run_at <= now),
    )
    return list(session.scalars(query.order_by(Schedule.created_at, Schedule.id)))


def bring_back(session: Session, now: datetime) -> list[str]:
    """Let schedules whose due time is further ahead than their next one run at that.

    It was found by a clock that was ahead and has been set back since: a nightly schedule would wait for days.

    Returns:
        Their names.
    """
    query = select(Schedule).where(
        Schedule.kind == "cron",
        Schedule.paused_at.is_(None),
        Schedule.deleted_at.is_(None),
        Schedule.next_run_at > now + FARTHEST_AHEAD,
    )
    found = []
    for schedule in session.scalars(query):
        when = when_of(schedule)
        due = schedule.next_run_at
        # Another beat, whose clock is a little ahead, may have run the next one already.
        if not isinstance(when, Cron) or due is None or due <= next(when.after(now + FARTHEST_AHEAD)):
            continue
        late = Schedule.id == schedule.id, Schedule.next_run_at == due
        session.execute(update(Schedule).where(*late).values(next_run_at=next(when.after(now))))
        found.append(schedule.name)
    return found


WhyNot = Callable[[Session, Schedule], str | None]
"""Why a schedule that is due may start no job now, in words for people; None if it may."""


def tick(
    session: Session, schedule_id: uuid.UUID, now: datetime, why_not: WhyNot = lambda *_: None
) -> uuid.UUID | None:
    """Start the schedule's job if it is due. Returns the job to enqueue after the commit, or None.

    Args:
        why_not: asked under the schedule's lock, in the transaction that would create the job.
    """
    schedule = session.scalars(
        select(Schedule)
        .where(Schedule.id == schedule_id, Schedule.paused_at.is_(None), Schedule.deleted_at.is_(None))
        .with_for_update(skip_locked=True, of=Schedule)
    ).one_or_none()
    if schedule is None:
        return None
    due = _due(session, schedule, now)
    if due is None:
        return None
    refusal = why_not_now(session, schedule, due.waiting) or why_not(session, schedule)
    if refusal is not None:
        _skip(session, schedule, due, now, refusal)
        return None
    job_id = _start(session, schedule)
    _record(session, schedule, due, now, job_id=job_id, reason=counted(due.waiting.count, "new trajectory"))
    return job_id


def quiet_since(session: Session, schedule: Schedule, now: datetime) -> datetime:
    """When the project last got a trajectory or answered a request, but not before the schedule was created.

    What is dated ahead of `now`, by a clock that has been set back, does not count.
    """
    project, latest = schedule.project_id, now + FARTHEST_AHEAD
    arrived = Trajectory.project_id == project, Trajectory.created_at <= latest
    trajectory = session.scalar(select(Trajectory.created_at).where(*arrived).order_by(Trajectory.seq.desc()).limit(1))
    answered = Exposure.project_id == project, Exposure.at <= latest
    answer = session.scalar(select(Exposure.at).where(*answered).order_by(Exposure.at.desc()).limit(1))
    moments = (trajectory, answer, schedule.created_at)
    return max((moment for moment in moments if moment is not None and moment <= latest), default=now)


def _due(session: Session, schedule: Schedule, now: datetime) -> _Due | None:
    when = when_of(schedule)
    if isinstance(when, Cron):
        first = schedule.next_run_at
        if first is None or first > now:
            return None
        schedule.next_run_at = next(when.after(now))
        return _Due(first, when.missed_until(first, now), waiting_for(session, schedule))
    waiting = waiting_for(session, schedule)
    if isinstance(when, NewTrajectories):
        return _Due(now, 0, waiting) if waiting.count >= when.count else None
    return _idle(session, schedule, when, waiting, now)


def _idle(session: Session, schedule: Schedule, when: Idle, waiting: Waiting, now: datetime) -> _Due | None:
    if waiting.count < when.at_least:
        return None
    at = quiet_since(session, schedule, now) + timedelta(hours=when.hours)
    return _Due(at, 0, waiting) if at <= now else None


def why_not_now(session: Session, schedule: Schedule, waiting: Waiting) -> str | None:
    """Why a training would not start, were the schedule due, by what the schedule itself knows; None if it would."""
    last = schedule.last_job
    if last is not None and last.state in jobs.LIVE:
        return f"its last job {last.id} is still {last.state}"
    if waiting.count == 0:
        beside = not_counted(session, schedule).in_words(training_request(schedule).min_reward)
        text = f"nothing new to learn: {schedule.adapter.name} has learned all of {schedule.task.name} that it may"
        return f"{text}; not counted: {beside}" if beside else text
    when = when_of(schedule)
    if isinstance(when, Cron) and waiting.count < when.at_least:
        return f"{waiting.count} of {counted(when.at_least, 'new trajectory')} wait"
    reason = why_not_parent(session, champion(session, schedule.adapter))
    return None if reason is None else f"the champion can't be gone on from: {reason}"


def _start(session: Session, schedule: Schedule) -> uuid.UUID:
    """Create an ordinary training that goes on from the champion of this moment."""
    request = training_request(schedule).job_request(schedule.task, champion(session, schedule.adapter))
    job = jobs.create_job(session, schedule.project_id, request, schedule.adapter)
    jobs.add_event(session, job.id, "info", f"started by schedule {schedule.name}", {"schedule": schedule.name})
    schedule.last_job = job
    return job.id


def _skip(session: Session, schedule: Schedule, due: _Due, now: datetime, reason: str) -> None:
    """Record a skip: each due time of a cron expression, but a condition that goes on to hold only once."""
    newest = session.scalars(
        select(ScheduleRun).where(ScheduleRun.schedule_id == schedule.id).order_by(ScheduleRun.seq.desc()).limit(1)
    ).one_or_none()
    if schedule.kind == "cron" or newest is None or newest.reason != reason:
        _record(session, schedule, due, now, job_id=None, reason=reason)


def _record(
    session: Session, schedule: Schedule, due: _Due, now: datetime, *, job_id: uuid.UUID | None, reason: str
) -> None:
    session.add(
        ScheduleRun(
            schedule_id=schedule.id,
            outcome="skipped" if job_id is None else "started",
            due_at=due.at,
            at=now,
            missed=due.missed,
            new_trajectories=due.waiting.count,
            up_to_seq=due.waiting.up_to_seq,
            job_id=job_id,
            reason=reason,
        )
    )
    session.flush()
