"""What is kept of versions and data, and what was let go: labels, archives, imports, retention, deletions."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.adapters import Adapter, Version
from registry.models.declarative import Base, JsonObject, created_at_column, owning_project_id, primary_id
from registry.models.jobs import Job
from registry.models.trajectories import Task

VERSION_CHANGES = (
    *("tagged", "untagged", "archived", "unarchived", "withdrawn", "purged", "restored", "exported", "imported"),
)
DELETION_SCOPES = ("trajectory", "session", "user")
DELETION_POLICIES = ("keep", "retrain", "withdraw")


class VersionStanding(Base):
    """What became of a version after its registration; a version without a row is an ordinary one."""

    __tablename__ = "version_standings"
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True)
    archived_at: Mapped[datetime | None]
    """Hidden and not servable, until it is taken out again."""
    withdrawn_at: Mapped[datetime | None]
    """Never servable again: it was trained on data that was deleted."""
    purged_at: Mapped[datetime | None]
    """Retention removed its bytes; rows and hashes stay. Null again once an import has brought them back."""


class VersionTag(Base):
    """A free label."""

    __tablename__ = "version_tags"
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = created_at_column()


class VersionChange(Base):
    """History of a version's labels and standing: who, when, why."""

    __tablename__ = "version_changes"
    __table_args__ = (
        CheckConstraint(f"kind in {VERSION_CHANGES}", name="kind"),
        Index("ix_version_changes_version_id_seq", "version_id", "seq"),
    )
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str]
    reason: Mapped[str]
    evidence: Mapped[JsonObject]
    at: Mapped[datetime] = created_at_column()


class VersionImport(Base):
    """Where a version came from that another installation trained."""

    __tablename__ = "version_imports"
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True)
    origin: Mapped[JsonObject]
    """The archive's description: name, number, verdict, lineage, hashes."""
    created_at: Mapped[datetime] = created_at_column()


class VersionImportTask(Base):
    """A task of this project that an ancestor of an imported version learned at its origin."""

    __tablename__ = "version_import_tasks"
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))


class VersionImportDataset(Base):
    """A dataset of this project that an imported version, or an ancestor at its origin, was trained on."""

    __tablename__ = "version_import_datasets"
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True)
    dataset_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class RetentionPolicy(Base):
    """How many of an adapter's newest versions are kept whatever needs them; the settings' default without a row."""

    __tablename__ = "retention_policies"
    __table_args__ = (CheckConstraint("keep_last >= 1", name="keep_last"),)
    adapter_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"), primary_key=True)
    keep_last: Mapped[int]
    actor: Mapped[str]
    changed_at: Mapped[datetime] = created_at_column()


class Deletion(Base):
    """The record of a deletion of data: who, when, why, hashes of what, and what it touched. Never the data."""

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
    """`{"id", "content_hash"}` of each."""
    affected: Mapped[JsonObject]
    """As the dry run lists it, with the jobs that replace cancelled ones (`restarted`) and what a withdrawal moved.
    Which jobs train versions anew, and how that goes, is in the rows of `Retraining`."""
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
    """What a deletion has yet to remove from the object store; done again until it is finished."""

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
    """When the first pass began that removed all that was there; what is left to do waits for jobs that had begun."""
    finished_at: Mapped[datetime | None]
    deletion: Mapped[Deletion] = relationship()


class Retraining(Base):
    """One step of training a version's line anew without deleted data; the steps of a line run one after another."""

    __tablename__ = "retrainings"
    deletion_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("deletions.id", ondelete="CASCADE"), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    adapter_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"))
    task_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    replaces_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id"))
    """The version that this step makes a successor of."""
    parent_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("versions.id"))
    """Of the first step: the nearest unaffected ancestor. Later steps go on from the step before."""
    params: Mapped[JsonObject]
    job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id"))
    stopped: Mapped[str | None]
    """Why the line ended here."""
    adapter: Mapped[Adapter] = relationship()
    task: Mapped[Task] = relationship()
    replaces: Mapped[Version] = relationship(foreign_keys=[replaces_id])
    job: Mapped[Job | None] = relationship()
