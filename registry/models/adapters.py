"""Adapters, their immutable versions, and the aliases that move among them."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.declarative import Base, JsonObject, created_at_column, owning_project_id, primary_id
from registry.models.trajectories import Dataset, Task

STRATEGIES = ("sequential", "replay", "isolated")
GATE_RULES = ("point", "significant_drop", "non_inferior")
GATE_POLICIES = ("automatic", "manual", "canary")
CANARY_PROMOTIONS = ("never", "better", "non_inferior")
"""Results of a canary that make it the champion by itself."""


class Adapter(Base):
    __tablename__ = "adapters"
    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        CheckConstraint(f"strategy in {STRATEGIES}", name="strategy"),
        CheckConstraint(f"gate_rule in {GATE_RULES}", name="gate_rule"),
        CheckConstraint(f"gate_policy in {GATE_POLICIES}", name="gate_policy"),
        CheckConstraint("gate_level > 0 and gate_level < 1", name="gate_level"),
        CheckConstraint("canary_share > 0 and canary_share <= 0.5", name="canary_share"),
        CheckConstraint(f"canary_promotion in {CANARY_PROMOTIONS}", name="canary_promotion"),
        CheckConstraint("canary_margin > 0 and canary_margin < 1", name="canary_margin"),
        CheckConstraint("retry_replay_share > 0 and retry_replay_share < 1", name="retry_replay_share"),
    )
    id: Mapped[uuid.UUID] = primary_id()
    project_id: Mapped[uuid.UUID] = owning_project_id()
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    base_model: Mapped[str]
    base_revision: Mapped[str]
    base_identity: Mapped[JsonObject | None] = mapped_column(JSONB(none_as_null=True))
    """Hashes of the base's tokenizer, chat template and generation config (`registry.binding`); null is unknown yet."""
    strategy: Mapped[str]
    replay_share: Mapped[float]
    gate_margin: Mapped[float]
    gate_rule: Mapped[str]
    gate_level: Mapped[float]
    gate_settled: Mapped[bool]
    gate_gain: Mapped[bool]
    gate_policy: Mapped[str]
    canary_share: Mapped[float]
    canary_promotion: Mapped[str]
    canary_margin: Mapped[float]
    retry_replay_share: Mapped[float | None]
    """This and the ten before it are the settings; `registry.adapters.AdapterSettings` says what each means."""
    memory: Mapped[JsonObject]
    """Fields of memgen's MemoryConfig; opaque here."""
    created_at: Mapped[datetime] = created_at_column()


class AdapterChange(Base):
    """One change of an adapter's settings: what, by whom, why."""

    __tablename__ = "adapter_changes"
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    adapter_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"), index=True)
    changes: Mapped[JsonObject]
    """`{"from": ..., "to": ...}` by setting."""
    actor: Mapped[str]
    reason: Mapped[str]
    at: Mapped[datetime] = created_at_column()


class Version(Base):
    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("adapter_id", "number"),)
    id: Mapped[uuid.UUID] = primary_id()
    adapter_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"))
    number: Mapped[int]
    parent_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("versions.id"), index=True)
    dataset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("datasets.id"), index=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), unique=True)
    base_model: Mapped[str]
    base_revision: Mapped[str]
    code_version: Mapped[str]
    artifact_key: Mapped[str]
    """Folder of the artifact in the object store."""
    artifact_hash: Mapped[str]
    """sha256 of the artifact's manifest.json."""
    form: Mapped[str]
    """What it is: a memory (`cache`, `embedding`) or a plain LoRA of the base (`lora`)."""
    report: Mapped[JsonObject]
    created_at: Mapped[datetime] = created_at_column()
    adapter: Mapped[Adapter] = relationship()
    dataset: Mapped[Dataset] = relationship()
    parent: Mapped["Version | None"] = relationship(remote_side=[id])
    imported_tasks: Mapped[list[Task]] = relationship(
        secondary="version_import_tasks", order_by="version_import_tasks.c.place", viewonly=True
    )
    """Tasks that the ancestors of an imported version learned at its origin, in that order."""


class Alias(Base):
    __tablename__ = "aliases"
    adapter_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id"))
    moved_at: Mapped[datetime] = created_at_column()
    version: Mapped[Version] = relationship()


class AliasMove(Base):
    """History of an alias; the newest row says where it stands."""

    __tablename__ = "alias_moves"
    __table_args__ = (
        Index("ix_alias_moves_adapter_id_alias_seq", "adapter_id", "alias", "seq"),
        Index("ix_alias_moves_adapter_id_seq", "adapter_id", "seq"),
        CheckConstraint("kind in ('promotion', 'rollback')", name="kind"),
    )
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    adapter_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"))
    alias: Mapped[str]
    kind: Mapped[str] = mapped_column(String(16))
    from_version_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("versions.id"))
    to_version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id"))
    actor: Mapped[str]
    reason: Mapped[str]
    evidence: Mapped[JsonObject]
    at: Mapped[datetime] = created_at_column()
    from_version: Mapped[Version | None] = relationship(foreign_keys=[from_version_id])
    to_version: Mapped[Version] = relationship(foreign_keys=[to_version_id])
