"""The rows. Every noun of the registry as a table; rules live in the module of each noun.

Datasets, suites, versions, evaluations and alias moves are immutable: a trigger in the database refuses to update
them. Everything that belongs to someone carries a `project_id`, and every query filters by it.
"""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from registry.clock import utc_now

JsonObject = dict[str, Any]

JOB_STATES = ("queued", "running", "succeeded", "failed", "cancelled")
STRATEGIES = ("sequential", "replay")
SCOPES = ("read", "write", "train", "promote", "admin")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own declarative attribute
        datetime: DateTime(timezone=True),
        JsonObject: JSONB,
        list[Any]: JSONB,
        list[str]: ARRAY(Text),
        str: Text,
    }


def _id() -> Mapped[uuid.UUID]:
    return mapped_column(primary_key=True, default=uuid.uuid4)


def _created_at() -> Mapped[datetime]:
    return mapped_column(default=utc_now)


def _project_id() -> Mapped[uuid.UUID]:
    return mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)


class Project(Base):
    __tablename__ = "projects"
    id: Mapped[uuid.UUID] = _id()
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = _created_at()


class ApiKey(Base):
    __tablename__ = "api_keys"
    id: Mapped[uuid.UUID] = _id()
    project_id: Mapped[uuid.UUID] = _project_id()
    name: Mapped[str]
    key_hash: Mapped[str] = mapped_column(unique=True)
    hint: Mapped[str]
    """First characters of the key, for people to tell keys apart."""
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = _created_at()
    revoked_at: Mapped[datetime | None]


class IdempotentReply(Base):
    """The reply to a creation, kept so that the same request sent again gets it again."""

    __tablename__ = "idempotent_replies"
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    endpoint: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str]
    reply: Mapped[JsonObject]
    created_at: Mapped[datetime] = _created_at()


class Task(Base):
    __tablename__ = "tasks"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: Mapped[uuid.UUID] = _id()
    project_id: Mapped[uuid.UUID] = _project_id()
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    grader: Mapped[JsonObject]
    """`{"kind": "exact", ...options}`; read by memgen, opaque here."""
    holdout_share: Mapped[float]
    created_at: Mapped[datetime] = _created_at()


class Trajectory(Base):
    __tablename__ = "trajectories"
    __table_args__ = (
        UniqueConstraint("task_id", "content_hash"),
        Index("ix_trajectories_task_id_held_out_seq", "task_id", "held_out", "seq"),
    )
    id: Mapped[uuid.UUID] = _id()
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), unique=True)
    """Order of arrival, for cursors and for 'N new since'."""
    project_id: Mapped[uuid.UUID] = _project_id()
    task_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    trajectory_id: Mapped[str | None]
    """The sender's own id; not unique."""
    session_id: Mapped[str | None] = mapped_column(index=True)
    content_hash: Mapped[str]
    prompt_hash: Mapped[str]
    """Of everything before the last assistant turn: all answers to one prompt are held out together, or none."""
    held_out: Mapped[bool]
    messages: Mapped[list[Any]]
    tools: Mapped[list[Any] | None]
    reward: Mapped[float | None]
    reward_source: Mapped[str | None]
    success: Mapped[bool | None]
    adapter_version: Mapped[str | None]
    details: Mapped[JsonObject]
    """The envelope's `metadata`."""
    tokens: Mapped[int]
    """Longest prompt plus answer of its supervised turns under the project's base tokenizer."""
    created_at: Mapped[datetime] = _created_at()
    task: Mapped[Task] = relationship()


class Suite(Base):
    """A frozen list of held-out items of a task."""

    __tablename__ = "suites"
    __table_args__ = (UniqueConstraint("task_id", "number"), UniqueConstraint("task_id", "content_hash"))
    id: Mapped[uuid.UUID] = _id()
    task_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    number: Mapped[int]
    content_hash: Mapped[str]
    items: Mapped[int]
    created_at: Mapped[datetime] = _created_at()
    task: Mapped[Task] = relationship()


class SuiteItem(Base):
    __tablename__ = "suite_items"
    suite_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("suites.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    trajectory_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("trajectories.id", ondelete="CASCADE"), index=True)


class Dataset(Base):
    """What one training run reads: new trajectories of one task and the replayed items of earlier ones."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("project_id", "content_hash"),)
    id: Mapped[uuid.UUID] = _id()
    project_id: Mapped[uuid.UUID] = _project_id()
    task_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    content_hash: Mapped[str]
    manifest: Mapped[JsonObject]
    """Counts by task and role, the replay share and seed."""
    object_key: Mapped[str]
    """JSONL in the object store."""
    created_at: Mapped[datetime] = _created_at()
    task: Mapped[Task] = relationship()


class DatasetItem(Base):
    __tablename__ = "dataset_items"
    dataset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    trajectory_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("trajectories.id", ondelete="CASCADE"), index=True)
    replayed: Mapped[bool]


class Adapter(Base):
    __tablename__ = "adapters"
    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        CheckConstraint(f"strategy in {STRATEGIES}", name="strategy"),
    )
    id: Mapped[uuid.UUID] = _id()
    project_id: Mapped[uuid.UUID] = _project_id()
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    base_model: Mapped[str]
    base_revision: Mapped[str]
    strategy: Mapped[str]
    replay_share: Mapped[float]
    gate_margin: Mapped[float]
    """Largest drop of an old task's score that a new version may show."""
    memory: Mapped[JsonObject]
    """memgen's MemoryConfig as given; opaque here."""
    created_at: Mapped[datetime] = _created_at()


class Version(Base):
    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("adapter_id", "number"),)
    id: Mapped[uuid.UUID] = _id()
    adapter_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"))
    number: Mapped[int]
    parent_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("versions.id"))
    dataset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("datasets.id"))
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id"), unique=True)
    base_model: Mapped[str]
    base_revision: Mapped[str]
    code_version: Mapped[str]
    artifact_key: Mapped[str]
    """Folder in the object store."""
    artifact_hash: Mapped[str]
    """sha256 of its manifest.json."""
    report: Mapped[JsonObject]
    created_at: Mapped[datetime] = _created_at()
    adapter: Mapped[Adapter] = relationship()
    dataset: Mapped[Dataset] = relationship()
    parent: Mapped["Version | None"] = relationship(remote_side=[id])


class Alias(Base):
    __tablename__ = "aliases"
    adapter_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id"))
    moved_at: Mapped[datetime] = _created_at()
    version: Mapped[Version] = relationship()


class AliasMove(Base):
    """History of an alias; the newest row says where it stands."""

    __tablename__ = "alias_moves"
    __table_args__ = (
        Index("ix_alias_moves_adapter_id_alias_seq", "adapter_id", "alias", "seq"),
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
    at: Mapped[datetime] = _created_at()
    from_version: Mapped[Version | None] = relationship(foreign_keys=[from_version_id])
    to_version: Mapped[Version] = relationship(foreign_keys=[to_version_id])


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"state in {JOB_STATES}", name="state"),
        Index("ix_jobs_live", "state", "lease_until", postgresql_where=text("state in ('queued', 'running')")),
    )
    id: Mapped[uuid.UUID] = _id()
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), unique=True)
    project_id: Mapped[uuid.UUID] = _project_id()
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(default="queued")
    params: Mapped[JsonObject]
    adapter_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"))
    dataset_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("datasets.id"))
    """Set once, so that a job taken up again trains on the same data."""
    attempt: Mapped[int] = mapped_column(default=0)
    """Counts claims. A worker whose attempt is no longer current has lost the job and may not write to it."""
    worker: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[JsonObject] = mapped_column(default=dict)
    result: Mapped[JsonObject | None]
    error: Mapped[str | None]
    enqueued_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = _created_at()
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    adapter: Mapped[Adapter | None] = relationship()


class JobEvent(Base):
    __tablename__ = "job_events"
    __table_args__ = (Index("ix_job_events_job_id_seq", "job_id", "seq"),)
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    at: Mapped[datetime] = _created_at()
    level: Mapped[str] = mapped_column(String(16))
    message: Mapped[str]
    data: Mapped[JsonObject]


class Evaluation(Base):
    """Score of one version, or of the bare base (`version_id` null), on one suite: an entry of R."""

    __tablename__ = "evaluations"
    __table_args__ = (
        UniqueConstraint("suite_id", "base_model", "base_revision", "version_id", postgresql_nulls_not_distinct=True),
    )
    id: Mapped[uuid.UUID] = _id()
    suite_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("suites.id", ondelete="CASCADE"))
    version_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), index=True)
    base_model: Mapped[str]
    base_revision: Mapped[str]
    score: Mapped[float]
    """Mean item score, in [0, 1]."""
    items: Mapped[list[Any]]
    """By place in the suite: `{"score": float, "answer": str}`."""
    seconds: Mapped[float]
    created_at: Mapped[datetime] = _created_at()
    suite: Mapped[Suite] = relationship()


class Gate(Base):
    """The recorded check of one version before an alias may move to it."""

    __tablename__ = "gates"
    id: Mapped[uuid.UUID] = _id()
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), unique=True)
    champion_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("versions.id"))
    """What the version was compared with; null is the bare base."""
    passed: Mapped[bool]
    margin: Mapped[float]
    comparisons: Mapped[list[Any]]
    """By task: `{"task", "role", "champion", "candidate", "change", "passed"}`."""
    reasons: Mapped[list[Any]]
    created_at: Mapped[datetime] = _created_at()
