"""Rows of jobs, the units of work, and of their events."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.adapters import Adapter
from registry.models.declarative import Base, JsonObject, created_at_column, primary_id

JOB_STATES = ("queued", "running", "succeeded", "failed", "cancelled")


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"state in {JOB_STATES}", name="state"),
        Index("ix_jobs_project_id_seq", "project_id", "seq"),
        Index("ix_jobs_adapter_id_kind_seq", "adapter_id", "kind", "seq"),
        Index("ix_jobs_failed", "project_id", "finished_at", postgresql_where=text("state = 'failed'")),
        Index("ix_jobs_live", "state", "lease_until", postgresql_where=text("state in ('queued', 'running')")),
    )
    id: Mapped[uuid.UUID] = primary_id()
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), unique=True)
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(default="queued")
    params: Mapped[JsonObject]
    adapter_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"))
    dataset_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("datasets.id"), index=True)
    """Set once, so that a job that is claimed again trains on the same data."""
    attempt: Mapped[int] = mapped_column(default=0)
    """Counts claims. A worker whose attempt is no longer current has lost the job and may not write to it."""
    worker: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[JsonObject] = mapped_column(default=dict)
    result: Mapped[JsonObject | None]
    error: Mapped[str | None]
    enqueued_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = created_at_column()
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    adapter: Mapped[Adapter | None] = relationship()


class JobEvent(Base):
    __tablename__ = "job_events"
    __table_args__ = (Index("ix_job_events_job_id_seq", "job_id", "seq"),)
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    at: Mapped[datetime] = created_at_column()
    level: Mapped[str] = mapped_column(String(16))
    message: Mapped[str]
    data: Mapped[JsonObject]
