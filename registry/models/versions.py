"""Rows about a version beside the version itself: state, tags, changes, imports, retention of its adapter."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from registry.models.declarative import Base, JsonObject, created_at_column

VERSION_CHANGES = (
    *("tagged", "untagged", "archived", "unarchived", "withdrawn", "purged", "restored", "exported", "imported"),
)


class VersionState(Base):
    """State of a version after its registration; a version without a row is an ordinary one."""

    __tablename__ = "version_standings"  # the table keeps its first name
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True)
    archived_at: Mapped[datetime | None]
    """When it was hidden. It is not servable until it is taken out of the archive again."""
    withdrawn_at: Mapped[datetime | None]
    """When it became unservable for ever, because it was trained on data that was deleted."""
    purged_at: Mapped[datetime | None]
    """When retention removed its bytes; rows and hashes stay. Null again once an import has brought the bytes back."""


class VersionTag(Base):
    """A free label."""

    __tablename__ = "version_tags"
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = created_at_column()


class VersionChange(Base):
    """One change of a version's tags or state: who, when, why."""

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
    """Origin of a version that another installation trained."""

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
    """Number of an adapter's newest versions that keep their bytes even without a hold; without a row, the default."""

    __tablename__ = "retention_policies"
    __table_args__ = (CheckConstraint("keep_last >= 1", name="keep_last"),)
    adapter_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"), primary_key=True)
    keep_last: Mapped[int]
    actor: Mapped[str]
    changed_at: Mapped[datetime] = created_at_column()
