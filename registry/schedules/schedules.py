"""Schedules: when an adapter learns a task by itself. Made, changed, paused, deleted and shown here.

`registry.schedules.ticks` asks whether one is due. Every change is a row with who made it, from what, to what.
"""

import math
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload

from registry.clock import utc_now
from registry.errors import InvalidSchedule, NameTaken, ScheduleNotFound
from registry.job_requests import GOOD_REWARD, TrainWeaver
from registry.models import Adapter, JsonObject, Schedule, ScheduleChange, ScheduleRun, Task, Version
from registry.names import check_name
from registry.schedules.cron import Cron
from registry.stored_json import StoredJson

SHOWN_RUNS = 5
MOST_HOURS = 24 * 366


@dataclass(frozen=True)
class NewTrajectories:
    """Due when `count` trajectories of the task wait that the adapter has not learned from."""

    count: int


@dataclass(frozen=True)
class Idle:
    """Due when something new waits, and the project got neither trajectories nor requests for `hours` hours."""

    hours: float
    at_least: int = 1
    """New trajectories that must wait."""


When = Cron | NewTrajectories | Idle


@dataclass(frozen=True)
class TrainingRequest(StoredJson):
    """What all jobs of a schedule have in common; fields as in `TrainWeaver`."""

    training: JsonObject
    min_reward: float = GOOD_REWARD
    promote: bool = True

    def job_request(self, task: Task, parent: Version | None) -> TrainWeaver:
        number = parent.number if parent else None
        return TrainWeaver.from_json({"task": task.name, "parent": number, **self.to_json()})


@dataclass(frozen=True)
class Change:
    """A change of a schedule; a field that is None stays as it is."""

    when: When | None = None
    training: JsonObject | None = None
    min_reward: float | None = None
    promote: bool | None = None
    paused: bool | None = None


def create_schedule(
    session: Session,
    project_id: uuid.UUID,
    name: str,
    *,
    adapter: Adapter,
    task: Task,
    when: When,
    request: TrainingRequest,
    actor: str,
) -> Schedule:
    """Raises InvalidName, InvalidSchedule, or NameTaken."""
    check_name("schedule", name)
    now = utc_now()
    schedule = Schedule(project_id=project_id, name=name, adapter=adapter, task=task, params=request.to_json())
    _set_when(schedule, when, now)
    try:
        with session.begin_nested():
            session.add(schedule)
    except IntegrityError as error:
        raise NameTaken(f"a schedule named {name!r} exists already; change that one, or choose another name") from error
    _record(session, schedule, "created", actor, before={})
    return schedule


def get_schedule(session: Session, project_id: uuid.UUID, name: str, *, lock: bool = False) -> Schedule:
    """Raises ScheduleNotFound."""
    query = select(Schedule).where(
        Schedule.project_id == project_id, Schedule.name == name, Schedule.deleted_at.is_(None)
    )
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    found = session.scalars(query).one_or_none()
    if found is None:
        raise ScheduleNotFound(f"no schedule named {name!r} in this project; `GET /v1/schedules` lists them")
    return found


def list_schedules(session: Session, project_id: uuid.UUID) -> list[Schedule]:
    """Sorted by name."""
    query = select(Schedule).where(Schedule.project_id == project_id, Schedule.deleted_at.is_(None))
    loaded = query.options(joinedload(Schedule.adapter), joinedload(Schedule.task), joinedload(Schedule.last_job))
    return list(session.scalars(loaded.order_by(Schedule.name)))


def change_schedule(session: Session, project_id: uuid.UUID, name: str, change: Change, *, actor: str) -> Schedule:
    """Apply a change. A schedule that is resumed does not make up for what it missed while it was paused.

    Raises:
        ScheduleNotFound, InvalidSchedule.
    """
    schedule = get_schedule(session, project_id, name, lock=True)
    before, now = describe(schedule), utc_now()
    fields = {name: getattr(change, name) for name in ("training", "min_reward", "promote")}
    changed = {name: value for name, value in fields.items() if value is not None}
    schedule.params = training_request(schedule).changed(**changed).to_json()
    kind = "changed"
    if change.when is not None:
        _set_when(schedule, change.when, now)
    if change.paused is True and schedule.paused_at is None:
        schedule.paused_at, kind = now, "paused"
    elif change.paused is False and schedule.paused_at is not None:
        schedule.paused_at, kind = None, "resumed"
        _set_when(schedule, when_of(schedule), now)
    session.flush()
    if describe(schedule) != before:
        _record(session, schedule, kind, actor, before=before)
    return schedule


def delete_schedule(session: Session, project_id: uuid.UUID, name: str, *, actor: str) -> Schedule:
    """Its jobs and its history stay. Raises ScheduleNotFound."""
    schedule = get_schedule(session, project_id, name, lock=True)
    before = describe(schedule)
    schedule.deleted_at = utc_now()
    session.flush()
    _record(session, schedule, "deleted", actor, before=before)
    return schedule


def list_runs(session: Session, schedule: Schedule, *, before: int | None, limit: int) -> list[ScheduleRun]:
    """Newest first.

    Args:
        before: the `seq` of the last run already seen.
    """
    query = select(ScheduleRun).where(ScheduleRun.schedule_id == schedule.id)
    if before is not None:
        query = query.where(ScheduleRun.seq < before)
    return list(session.scalars(query.order_by(ScheduleRun.seq.desc()).limit(limit)))


def list_changes(session: Session, schedule: Schedule) -> list[ScheduleChange]:
    """Oldest first."""
    query = select(ScheduleChange).where(ScheduleChange.schedule_id == schedule.id)
    return list(session.scalars(query.order_by(ScheduleChange.seq)))


def next_runs(schedule: Schedule, now: datetime, count: int = SHOWN_RUNS) -> list[datetime]:
    """Due times of a cron expression that is not paused; none for other kinds, which depend on what will be sent."""
    when = when_of(schedule)
    if not isinstance(when, Cron) or schedule.paused_at is not None or schedule.next_run_at is None:
        return []
    return [schedule.next_run_at, *when.upcoming(max(now, schedule.next_run_at), count - 1)]


def when_of(schedule: Schedule) -> When:
    if schedule.cron is not None and schedule.time_zone is not None:
        return Cron(schedule.cron, schedule.time_zone, schedule.new_trajectories or 1)
    if schedule.idle_hours is not None:
        return Idle(schedule.idle_hours, schedule.new_trajectories or 1)
    if schedule.new_trajectories is not None:
        return NewTrajectories(schedule.new_trajectories)
    raise RuntimeError(f"schedule {schedule.id} has no condition, against its check constraints")


def training_request(schedule: Schedule) -> TrainingRequest:
    return TrainingRequest.from_json(schedule.params)


def describe(schedule: Schedule) -> dict[str, Any]:
    """The schedule's settings as JSON, for its history."""
    fields = ("kind", "cron", "time_zone", "new_trajectories", "idle_hours", "params")
    return {field: getattr(schedule, field) for field in fields} | {"paused": schedule.paused_at is not None}


def _set_when(schedule: Schedule, when: When, now: datetime) -> None:
    schedule.cron = schedule.time_zone = schedule.new_trajectories = schedule.idle_hours = schedule.next_run_at = None
    if isinstance(when, Cron):
        when.check(now)
        schedule.kind, schedule.cron, schedule.time_zone = "cron", when.expression, when.time_zone
        schedule.new_trajectories = when.at_least if when.at_least > 1 else None
        schedule.next_run_at = next(when.after(now))
    elif isinstance(when, NewTrajectories):
        if not 1 <= when.count < 2**31:
            raise InvalidSchedule(f"after {when.count} new trajectories; expected at least 1")
        schedule.kind, schedule.new_trajectories = "new_trajectories", when.count
    else:
        if not (math.isfinite(when.hours) and 0 < when.hours <= MOST_HOURS):
            raise InvalidSchedule(f"after {when.hours} idle hours; expected more than 0 and at most {MOST_HOURS}")
        if not 1 <= when.at_least < 2**31:
            raise InvalidSchedule(f"after {when.at_least} new trajectories; expected at least 1")
        schedule.kind, schedule.idle_hours = "idle", when.hours
        schedule.new_trajectories = when.at_least if when.at_least > 1 else None


def _record(session: Session, schedule: Schedule, kind: str, actor: str, *, before: dict[str, Any]) -> None:
    after = {} if kind == "deleted" else describe(schedule)
    session.add(ScheduleChange(schedule_id=schedule.id, kind=kind, actor=actor, before=before, after=after))
    session.flush()
