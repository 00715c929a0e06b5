"""Rows of tasks and trajectories, and of what is made of them: suites to evaluate on, datasets to train on."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.declarative import Base, JsonObject, created_at_column, owning_project_id, primary_id

JUDGE_REWARDS = ("apart", "fill")
"""Whether judges' rewards are shown beside those of others alone, or are used where no other gave one."""


class Task(Base):
    __tablename__ = "tasks"
    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        CheckConstraint("shared_turns >= 0", name="shared_turns"),
        CheckConstraint(f"judge_rewards in {JUDGE_REWARDS}", name="judge_rewards"),
    )
    id: Mapped[uuid.UUID] = primary_id()
    project_id: Mapped[uuid.UUID] = owning_project_id()
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    grader: Mapped[JsonObject]
    """`{"kind": "exact", ...options}`; read by memgen, opaque here."""
    holdout_share: Mapped[float]
    shared_turns: Mapped[int] = mapped_column(default=0)
    """Assistant turns that every conversation of the task opens with; the side depends on what follows them."""
    judge_rewards: Mapped[str] = mapped_column(default="apart", server_default="apart")
    created_at: Mapped[datetime] = created_at_column()


USER = "(details ->> 'user')"
"""Whose data a trajectory is, in the words of the index by which a deletion finds it."""


class Trajectory(Base):
    __tablename__ = "trajectories"
    __table_args__ = (
        UniqueConstraint("task_id", "content_hash"),
        Index("ix_trajectories_task_id_held_out_seq", "task_id", "held_out", "seq"),
        Index("ix_trajectories_task_id_beginning_hash", "task_id", "beginning_hash"),
        Index("ix_trajectories_task_id_rewarded_at", "task_id", "rewarded_at"),
        Index("ix_trajectories_project_id_reward_source_seq", "project_id", "reward_source", "seq"),
        Index("ix_trajectories_project_id_seq", "project_id", "seq"),
        Index(
            "ix_trajectories_project_id_adapter_version_seq",
            *("project_id", "adapter_version", "seq"),
            postgresql_where=text("adapter_version is not null"),
        ),
        Index("ix_trajectories_task_id_created_at", "task_id", "created_at", postgresql_include=["id"]),
        Index(
            "ix_trajectories_project_id_user", "project_id", text(USER), postgresql_where=text(f"{USER} is not null")
        ),
    )
    id: Mapped[uuid.UUID] = primary_id()
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), unique=True)
    """Order of arrival, for cursors and for 'N new since'."""
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    task_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    trajectory_id: Mapped[str | None]
    """The sender's own id; not unique."""
    session_id: Mapped[str | None] = mapped_column(index=True)
    content_hash: Mapped[str]
    beginning_hash: Mapped[str | None]
    """Hash of what stands in front of the first answer: trajectories that begin alike are on the same side.
    Null if the conversation ends within the turns that the task's conversations share; it is never held out then."""
    held_out: Mapped[bool]
    messages: Mapped[list[Any]] = mapped_column(JSON)
    """As sent, in the order of its keys too, which jsonb would not keep; a model reads it. So are `tools`."""
    tools: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    reward: Mapped[float | None]
    """The effective one of its rewards, by the order of `registry.rewards.rewards`; so is its source."""
    reward_source: Mapped[str | None]
    rewarded_at: Mapped[datetime | None]
    """When the effective reward last changed after it had been stored."""
    success: Mapped[bool | None]
    adapter_version: Mapped[str | None]
    """The version that answered, as `bot@7`, by the sender's word."""
    details: Mapped[JsonObject]
    """The envelope's `metadata`."""
    sampled: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    """What is known of each assistant turn as it was sampled, null for a turn of which nothing is; null if none is.
    `registry.recordings.sampled` says what it holds."""
    tokens: Mapped[int]
    """Longest prompt plus answer of its supervised turns under the project's base tokenizer."""
    created_at: Mapped[datetime] = created_at_column()
    task: Mapped[Task] = relationship()


class TrajectoryWords(Base):
    """The words of a trajectory's conversation, by which it is searched. They come after it, and go with it.

    A table of its own: rows of trajectories are read all the time, and an index on their words would cost each import.
    """

    __tablename__ = "trajectory_words"
    __table_args__ = (
        Index("ix_trajectory_words_project_id_seq", "project_id", "seq"),
        Index("ix_trajectory_words_words", "words", postgresql_using="gin"),
    )
    seq: Mapped[int] = mapped_column(BigInteger, ForeignKey("trajectories.seq", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    words: Mapped[str] = mapped_column(TSVECTOR)


class Suite(Base):
    """A frozen list of held-out items of a task."""

    __tablename__ = "suites"
    __table_args__ = (UniqueConstraint("task_id", "number"), UniqueConstraint("task_id", "content_hash"))
    id: Mapped[uuid.UUID] = primary_id()
    task_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    number: Mapped[int]
    content_hash: Mapped[str]
    items: Mapped[int]
    created_at: Mapped[datetime] = created_at_column()
    task: Mapped[Task] = relationship()


class SuiteItem(Base):
    __tablename__ = "suite_items"
    suite_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("suites.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    trajectory_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("trajectories.id", ondelete="CASCADE"), index=True)


class Dataset(Base):
    """The data of one training run: new trajectories of one task and the replayed items of earlier ones."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("project_id", "content_hash"),)
    id: Mapped[uuid.UUID] = primary_id()
    project_id: Mapped[uuid.UUID] = owning_project_id()
    task_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    content_hash: Mapped[str]
    manifest: Mapped[JsonObject]
    """Counts by task and role, the replay share and seed."""
    object_key: Mapped[str]
    """JSONL in the object store."""
    created_at: Mapped[datetime] = created_at_column()
    task: Mapped[Task] = relationship()


class DatasetItem(Base):
    __tablename__ = "dataset_items"
    dataset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    trajectory_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("trajectories.id", ondelete="CASCADE"), index=True)
    replayed: Mapped[bool]
    reward: Mapped[float | None]
    """The trajectory's reward when the dataset was made."""
