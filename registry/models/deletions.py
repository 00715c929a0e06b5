"""Rows of deletions of data: the record, what is left to erase, and the steps of training anew without it."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.adapters import Adapter, Version
from registry.models.declarative import Base, JsonObject, created_at_column, owning_project_id, primary_id
from registry.models.jobs import Job
from registry.models.trajectories import Task

DELETION_SCOPES = ("trajectory", "session", "user")


DELETION_POLICIES = ("keep", "retrain", "withdraw")


class Deletion(Base):
    """The record of a deletion of data: who, when, why, hashes of the data, what it touched. Never the data itself."""

    __tablename__ = "deletions"
    __table_args__ = (
        CheckConstraint(f"scope in {DELETION_SCOPES}", name="scope"),
        CheckConstraint(f"policy in {DELETION_POLICIES}", name="policy"),
    )
    id: Mapped[uuid.UUID] = primary_id()
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), unique=True)
    project_id: Mapped[uuid.UUID] = owning_project_id()
    scope: Mapped[str] = mapped_column(String(16))
    subject_hash: Mapped[str]
    """sha256 of the trajectory's, session's or user's id."""
    policy: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str]
    reason: Mapped[str]
    trajectories: Mapped[list[Any]]
    """`{"id", "content_hash"}` of each trajectory."""
    affected: Mapped[JsonObject]
    """The dry run's list, with the jobs that replace cancelled ones (`restarted`), what a withdrawal moved, and earlier
    deletions whose retrainings do the work of this one's (`retrained_by`). The rows of `Retraining` say which jobs
    train versions anew, and how far they are."""
    created_at: Mapped[datetime] = created_at_column()


class DeletionDataset(Base):
    """A dataset that held deleted items. Versions trained on it, and their descendants, learned from deleted data."""

    __tablename__ = "deletion_datasets"
    deletion_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("deletions.id", ondelete="CASCADE"), primary_key=True)
    dataset_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    items: Mapped[int]


class Erasure(Base):
    """The part of a deletion in the object store; it is repeated until it is finished."""

    __tablename__ = "erasures"
    __table_args__ = (Index("ix_erasures_unfinished", "deletion_id", postgresql_where=text("finished_at is null")),)
    deletion_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("deletions.id", ondelete="CASCADE"), primary_key=True)
    datasets: Mapped[list[str]]
    """Keys of JSONL objects whose deleted lines must go."""
    objects: Mapped[list[str]]
    """Keys of objects that must go."""
    job_ids: Mapped[list[str]]
    """Jobs that were live at the time. Those that had begun may still write a file with deleted lines, a checkpoint."""
    swept_at: Mapped[datetime | None]
    """When the first complete pass began; the last pass waits for the jobs that had begun by then."""
    finished_at: Mapped[datetime | None]
    deletion: Mapped[Deletion] = relationship()


class Retraining(Base):
    """One step of training a chain of versions anew without deleted data; the steps run one after another."""

    __tablename__ = "retrainings"
    deletion_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("deletions.id", ondelete="CASCADE"), primary_key=True)
    # The columns of the next two are called otherwise: renaming them would take a migration and gain nothing.
    chain: Mapped[int] = mapped_column("line", primary_key=True)
    step: Mapped[int] = mapped_column("place", primary_key=True)
    """0 for the first step of the chain."""
    adapter_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"))
    task_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    replaces_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id"))
    """The version that this step makes a successor of."""
    parent_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("versions.id"))
    """The nearest unaffected ancestor, for the first step; later steps go on from the step before."""
    params: Mapped[JsonObject]
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id"))
    stopped: Mapped[str | None]
    """Why the chain ended here."""
    adapter: Mapped[Adapter] = relationship()
    task: Mapped[Task] = relationship()
    replaces: Mapped[Version] = relationship(foreign_keys=[replaces_id])
    job: Mapped[Job | None] = relationship()
