"""Rows of schedules, which make an adapter learn by itself: their runs and their changes."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.adapters import Adapter
from registry.models.declarative import Base, JsonObject, created_at_column, owning_project_id, primary_id
from registry.models.jobs import Job
from registry.models.trajectories import Task

SCHEDULE_KINDS = ("cron", "new_trajectories", "idle")
SCHEDULE_CHANGES = ("created", "changed", "paused", "resumed", "deleted")
RUN_OUTCOMES = ("started", "skipped")


class Schedule(Base):
    """A deleted one stays for its history; its name is free again."""

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint(f"kind in {SCHEDULE_KINDS}", name="kind"),
        CheckConstraint("(kind = 'cron') = (cron is not null and time_zone is not null)", name="cron"),
        CheckConstraint(
            "kind <> 'new_trajectories' or new_trajectories is not null",
            name="new_trajectories",
        ),
        CheckConstraint("(kind = 'idle') = (idle_hours is not null)", name="idle_hours"),
        Index("uq_schedules_name", "project_id", "name", unique=True, postgresql_where=text("deleted_at is null")),
    )
    id: Mapped[uuid.UUID] = primary_id()
    project_id: Mapped[uuid.UUID] = owning_project_id()
    name: Mapped[str]
    adapter_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"))
    task_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    cron: Mapped[str | None]
    time_zone: Mapped[str | None]
    """IANA name, in which `cron` is read."""
    new_trajectories: Mapped[int | None]
    """How many must wait; null, with the kinds `cron` and `idle`, is one."""
    idle_hours: Mapped[float | None]
    params: Mapped[JsonObject]
    """Parameters of the jobs that it starts: `training`, `min_reward`, `promote`."""
    next_run_at: Mapped[datetime | None]
    """Due time of a cron expression; the other kinds are looked at in every tick."""
    last_job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id"))
    paused_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = created_at_column()
    adapter: Mapped[Adapter] = relationship()
    task: Mapped[Task] = relationship()
    last_job: Mapped[Job | None] = relationship()


class ScheduleRun(Base):
    """One time that a schedule was due: the job it started, or why it started none."""

    __tablename__ = "schedule_runs"
    __table_args__ = (
        CheckConstraint(f"outcome in {RUN_OUTCOMES}", name="outcome"),
        CheckConstraint("(outcome = 'started') = (job_id is not null)", name="job_id"),
        Index("ix_schedule_runs_schedule_id_seq", "schedule_id", "seq"),
    )
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    schedule_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"))
    outcome: Mapped[str] = mapped_column(String(16))
    due_at: Mapped[datetime]
    at: Mapped[datetime] = created_at_column()
    missed: Mapped[int]
    """Later due times that this run made up for as well."""
    new_trajectories: Mapped[int]
    """Trajectories that the adapter had not learned from yet."""
    up_to_seq: Mapped[int] = mapped_column(BigInteger)
    """Arrival number of the newest of them."""
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    reason: Mapped[str]


class ScheduleChange(Base):
    """One change of a schedule: who, when, from what, to what."""

    __tablename__ = "schedule_changes"
    __table_args__ = (CheckConstraint(f"kind in {SCHEDULE_CHANGES}", name="kind"),)
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    schedule_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str]
    before: Mapped[JsonObject]
    after: Mapped[JsonObject]
    at: Mapped[datetime] = created_at_column()
