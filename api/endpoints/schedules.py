"""Schedules: an adapter learns a task by itself, by the clock, by what has arrived, or when it is quiet."""

import json
import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.http.deps import Reader, ServicesDep, Trainer
from api.http.idempotency import IdempotencyDep, once
from api.http.pagination import Cursor, Page, PageLimit, decode_cursor, make_page
from api.http.schemas import Strict
from api.http.values import Number
from memgen.config import TrainingConfig
from registry.adapters import get_adapter
from registry.clock import utc_now
from registry.database import transaction
from registry.errors import InvalidSchedule
from registry.job_requests import GOOD_REWARD
from registry.models import Schedule, ScheduleChange, ScheduleRun
from registry.schedules import schedules
from registry.schedules.cron import Cron
from registry.schedules.waiting import Waiting, waiting_for, waiting_of
from registry.tasks import get_task

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])


class WhenIn(Strict):
    cron: Annotated[str | None, Field(max_length=200, description="Five fields: `0 3 * * *` is every night at 3")] = (
        None
    )
    time_zone: Annotated[str | None, Field(max_length=64, description="IANA name, of `cron`; default UTC")] = None
    new_trajectories: Annotated[
        Number | None,
        Field(description="After so many that were not learned yet; with `cron`, fewer wait for its next due time"),
    ] = None
    idle_hours: Annotated[float | None, Field(description="After so long without trajectories and requests")] = None

    def read(self) -> schedules.When | None:
        """When it is due; None where the body has nothing of it.

        Raises:
            InvalidSchedule: `idle_hours` beside `cron`, or a zone without `cron`.
        """
        triggers = [name for name in ("cron", "new_trajectories", "idle_hours") if getattr(self, name) is not None]
        if (self.cron is not None and self.idle_hours is not None) or (
            self.time_zone is not None and self.cron is None
        ):
            raise InvalidSchedule(
                f"{triggers or 'time_zone alone'} given; expected cron (with time_zone) or idle_hours, each with "
                "or without new_trajectories, or that alone"
            )
        if self.cron is not None:
            return Cron(
                self.cron, self.time_zone or "UTC", 1 if self.new_trajectories is None else self.new_trajectories
            )
        if self.idle_hours is not None:
            return schedules.Idle(self.idle_hours, 1 if self.new_trajectories is None else self.new_trajectories)
        if self.new_trajectories is not None:
            return schedules.NewTrajectories(self.new_trajectories)
        return None

    def needed(self) -> schedules.When:
        """Raises InvalidSchedule: as `read`, or the body has nothing of when it is due."""
        when = self.read()
        if when is None:
            raise InvalidSchedule("a schedule needs cron (with time_zone), new_trajectories or idle_hours")
        return when


class ScheduleIn(WhenIn):
    name: str
    adapter: str
    task: str
    training: Annotated[dict[str, Any], Field(default_factory=dict, description="Fields of TrainingConfig: steps, ...")]
    min_reward: float = GOOD_REWARD
    promote: bool = True


class ScheduleChangeIn(WhenIn):
    training: Annotated[dict[str, Any] | None, Field(description="Replaces all of it")] = None
    min_reward: float | None = None
    promote: bool | None = None
    paused: bool | None = None


class LastJobOut(BaseModel):
    id: uuid.UUID
    state: str


class ScheduleOut(BaseModel):
    name: str
    adapter: str
    task: str
    kind: str
    cron: str | None
    time_zone: str | None
    new_trajectories: int | None
    idle_hours: float | None
    training: dict[str, Any]
    min_reward: float
    promote: bool
    paused: bool
    next_runs: list[datetime]
    """Next times of a cron expression; empty for other schedules."""
    waiting: int
    """Trajectories that it counts as new."""
    last_job: LastJobOut | None
    created_at: datetime

    @classmethod
    def of(cls, session: Session, row: Schedule) -> "ScheduleOut":
        return cls.shown(row, waiting_for(session, row))

    @classmethod
    def shown(cls, row: Schedule, waiting: Waiting) -> "ScheduleOut":
        return cls(
            name=row.name,
            adapter=row.adapter.name,
            task=row.task.name,
            kind=row.kind,
            cron=row.cron,
            time_zone=row.time_zone,
            new_trajectories=row.new_trajectories,
            idle_hours=row.idle_hours,
            **row.params,
            paused=row.paused_at is not None,
            next_runs=schedules.next_runs(row, utc_now()),
            waiting=waiting.count,
            last_job=LastJobOut(id=row.last_job.id, state=row.last_job.state) if row.last_job else None,
            created_at=row.created_at,
        )


class ScheduleList(BaseModel):
    data: list[ScheduleOut]


class ScheduleRunOut(BaseModel):
    outcome: str
    due_at: datetime
    at: datetime
    missed: int
    """Later due times that this run made up for as well."""
    new_trajectories: int
    job_id: uuid.UUID | None
    reason: str

    @classmethod
    def of(cls, row: ScheduleRun) -> "ScheduleRunOut":
        return cls.model_validate(row, from_attributes=True)


class ScheduleChangeOut(BaseModel):
    kind: str
    actor: str
    before: dict[str, Any]
    after: dict[str, Any]
    at: datetime

    @classmethod
    def of(cls, row: ScheduleChange) -> "ScheduleChangeOut":
        return cls.model_validate(row, from_attributes=True)


class ScheduleHistory(BaseModel):
    data: list[ScheduleChangeOut]


@router.post("", status_code=201)
def create(body: ScheduleIn, services: ServicesDep, caller: Trainer, idempotency: IdempotencyDep) -> ScheduleOut:
    """Each run is an ordinary training that goes on from the champion of that moment."""
    when = body.needed()
    request = schedules.TrainingRequest(checked_training(body.training), body.min_reward, body.promote)
    with transaction(services.sessions) as session:

        def created() -> ScheduleOut:
            schedule = schedules.create_schedule(
                session,
                caller.project_id,
                body.name,
                adapter=get_adapter(session, caller.project_id, body.adapter),
                task=get_task(session, caller.project_id, body.task),
                when=when,
                request=request,
                actor=caller.actor,
            )
            return ScheduleOut.of(session, schedule)

        return once(session, caller.project_id, idempotency, body, ScheduleOut, created)


@router.get("")
def index(services: ServicesDep, caller: Reader) -> ScheduleList:
    with transaction(services.sessions) as session:
        rows = schedules.list_schedules(session, caller.project_id)
        waiting = waiting_of(session, rows)
        return ScheduleList(data=[ScheduleOut.shown(row, waiting[row.id]) for row in rows])


@router.get("/{name}")
def show(name: str, services: ServicesDep, caller: Reader) -> ScheduleOut:
    with transaction(services.sessions) as session:
        return ScheduleOut.of(session, schedules.get_schedule(session, caller.project_id, name))


@router.patch("/{name}")
def change(name: str, body: ScheduleChangeIn, services: ServicesDep, caller: Trainer) -> ScheduleOut:
    """What is left out stays. Resuming does not make up for what was missed while paused."""
    wanted = schedules.Change(
        when=body.read(),
        training=None if body.training is None else checked_training(body.training),
        min_reward=body.min_reward,
        promote=body.promote,
        paused=body.paused,
    )
    with transaction(services.sessions) as session:
        row = schedules.change_schedule(session, caller.project_id, name, wanted, actor=caller.actor)
        return ScheduleOut.of(session, row)


@router.delete("/{name}")
def delete(name: str, services: ServicesDep, caller: Trainer) -> ScheduleOut:
    """Its jobs stay, and its name is free again."""
    with transaction(services.sessions) as session:
        row = schedules.delete_schedule(session, caller.project_id, name, actor=caller.actor)
        return ScheduleOut.of(session, row)


@router.get("/{name}/runs")
def runs(
    name: str, services: ServicesDep, caller: Reader, cursor: Cursor = None, limit: PageLimit = 50
) -> Page[ScheduleRunOut]:
    """Newest first: jobs started, and why none was."""
    with transaction(services.sessions) as session:
        schedule = schedules.get_schedule(session, caller.project_id, name)
        rows = schedules.list_runs(session, schedule, before=decode_cursor(cursor) or None, limit=limit + 1)
        return make_page(rows, limit, seq=lambda row: row.seq, render=ScheduleRunOut.of)


@router.get("/{name}/history")
def history(name: str, services: ServicesDep, caller: Reader) -> ScheduleHistory:
    """Who changed it, oldest first."""
    with transaction(services.sessions) as session:
        schedule = schedules.get_schedule(session, caller.project_id, name)
        return ScheduleHistory(data=[ScheduleChangeOut.of(row) for row in schedules.list_changes(session, schedule)])


def checked_training(fields: dict[str, Any]) -> dict[str, Any]:
    """All fields of the training, checked now and not in a job at night."""
    checked: dict[str, Any] = json.loads(json.dumps(TrainingConfig.from_mapping(fields).to_mapping()))
    return checked
