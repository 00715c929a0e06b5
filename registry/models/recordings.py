"""Rows of recording: what a project wants recorded, the runs of its agents, and which answer stands in which run."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, ForeignKey, ForeignKeyConstraint, Identity, Index, text
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.adapters import Adapter
from registry.models.declarative import Base, JsonObject, created_at_column, owning_project_id, primary_id
from registry.models.trajectories import Task

RECORDING_MODES = ("off", "asked", "all")
RUN_STATES = ("open", "closing", "closed")
CLOSE_REASONS = ("idle", "header", "reward", "limit")
TURN_KINDS = ("own", "copied", "foreign")

# As indexes say it: a statement that is to be answered by one of them uses the same words.
IS_UNFINISHED, IS_OPEN, IS_CLOSING = "state <> 'closed'", "state = 'open'", "state = 'closing'"
IDLE_AT = "timezone('UTC', timezone('UTC', last_at) + make_interval(secs => idle_seconds))"
"""When the silence behind a run's last answer is as long as ends it. By way of UTC, since an index holds only what is
the same in every time zone."""


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class RecordingPolicy(Base):
    """What is recorded of a project's answers, or of one adapter's."""

    __tablename__ = "recording_policies"
    __table_args__ = (
        Unique("project_id", "adapter_id", postgresql_nulls_not_distinct=True),
        _one_of("mode", RECORDING_MODES),
        CheckConstraint("share > 0 AND share <= 1", name="share"),
        CheckConstraint("idle_seconds > 0", name="idle_seconds"),
    )
    id: Mapped[uuid.UUID] = primary_id()
    project_id: Mapped[uuid.UUID] = owning_project_id()
    adapter_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"))
    """Null: the whole project."""
    mode: Mapped[str]
    share: Mapped[float] = mapped_column(default=1.0)
    """Share of the sessions that mode `all` records."""
    task_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("tasks.id", ondelete="SET NULL"))
    """Task of what names none."""
    idle_seconds: Mapped[float | None]
    """Silence that closes a run; null takes the project's, then the service's."""
    changed_at: Mapped[datetime] = created_at_column()
    actor: Mapped[str]
    adapter: Mapped[Adapter | None] = relationship()
    task: Mapped[Task | None] = relationship()


class Run(Base):
    """One attempt of an agent at one piece of work."""

    __tablename__ = "runs"
    __table_args__ = (
        _one_of("state", RUN_STATES),
        CheckConstraint(f"close_reason IN {CLOSE_REASONS!r}", name="close_reason"),
        Index("ix_runs_project_id_seq", "project_id", "seq"),
        Index("ix_runs_project_id_user", "project_id", "user", postgresql_where=text('"user" is not null')),
        Index("ix_runs_project_id_scope_tip", "project_id", "scope", "tip"),
        Index("ix_runs_project_id_session_id_last_at", "project_id", "session_id", "last_at"),
        Index("ix_runs_task_id_last_at", "task_id", "last_at"),
        Index("ix_runs_refused", "project_id", "seq", postgresql_where="refusal_code is not null"),
        Index("ix_runs_unfinished", "last_at", postgresql_where=IS_UNFINISHED),
        Index("ix_runs_idle_at", text(IDLE_AT), postgresql_where=IS_OPEN),
        Index("ix_runs_closing_at", "closing_at", postgresql_where=IS_CLOSING),
    )
    id: Mapped[uuid.UUID] = primary_id()
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), unique=True)
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    task_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    scope: Mapped[str]
    """Within what a request may continue it: its session, else its key."""
    session_id: Mapped[str | None]
    user: Mapped[str | None]
    """Whose data it is, where a request says so; a deletion finds it by this."""
    state: Mapped[str] = mapped_column(default="open")
    """`closing` takes only what was answered before `closing_at`, from a slower process."""
    close_reason: Mapped[str | None]
    opened_at: Mapped[datetime]
    last_at: Mapped[datetime] = mapped_column()
    """When its last answer was given."""
    closing_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    idle_seconds: Mapped[float]
    tip: Mapped[str]
    """Hash of the conversation up to its last answer: a request that begins so continues it."""
    size: Mapped[int]
    """Bytes of its messages as JSON."""
    turns: Mapped[int] = mapped_column(default=0)
    """Assistant turns, copied ones among them."""
    calls: Mapped[int] = mapped_column(default=0)
    """Answers that were recorded in it."""
    tools: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    tools_hash: Mapped[str | None]
    details: Mapped[JsonObject]
    """The first request's `metadata`."""
    branch_of: Mapped[uuid.UUID | None]
    """Run whose earlier point its first request went on from."""
    trajectory_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("trajectories.id", ondelete="CASCADE"), index=True
    )
    refusal_code: Mapped[str | None]
    refusal_reason: Mapped[str | None]
    """Why no trajectory could be made of it."""
    task: Mapped[Task] = relationship()


class RunTurn(Base):
    """One assistant turn of a run that is not yet a trajectory, with the messages since the turn before."""

    __tablename__ = "run_turns"
    __table_args__ = (
        _one_of("kind", TURN_KINDS),
        Index("ix_run_turns_hash", "hash"),
        ForeignKeyConstraint(["run_id"], ["runs.id"], ondelete="CASCADE", name="fk_run_turns_run_id_runs"),
    )
    run_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    hash: Mapped[str]
    """Hash of the conversation up to and with this turn."""
    kind: Mapped[str]
    """`own`: answered here, in this run. `copied`: in another run. `foreign`: not known to be answered here."""
    at: Mapped[datetime]
    """When it was answered; of a turn that is not its own, when the request that brought it came."""
    messages: Mapped[list[Any]] = mapped_column(JSON)
    model: Mapped[str | None]
    """The exact version that answered, `base`, or the upstream's model."""
    finish_reason: Mapped[str | None]
    sampled: Mapped[JsonObject | None] = mapped_column(JSON(none_as_null=True))


class RunCall(Base):
    """An answer that was recorded. It outlives its run, without any of the content: an answer is recorded once."""

    __tablename__ = "recorded_calls"
    completion_id: Mapped[str] = mapped_column(primary_key=True)
    choice: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[uuid.UUID] = owning_project_id()
    run_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("runs.id", ondelete="SET NULL"), index=True)
    place: Mapped[int]
    announced_run_id: Mapped[uuid.UUID | None] = mapped_column(index=True)
    """The run that the answer named, where that was another."""
    version_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("versions.id", ondelete="SET NULL"))
    at: Mapped[datetime]


class RecordingCount(Base):
    """How many answers of a project had one outcome: `recorded`, or the reason why not."""

    __tablename__ = "recording_counts"
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    outcome: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class LiveRecorder(Base):
    """A process that takes answers, or one that has ended and left some behind: what of them stands in runs."""

    __tablename__ = "recorders"
    name: Mapped[str] = mapped_column(primary_key=True)
    """The name of its spool."""
    moved_until: Mapped[datetime]
    """All that it answered before stands in runs. By the process's clock, as the answers are."""
    seen_at: Mapped[datetime]
    """When it, or who takes it over, last said so. By the database's clock: processes compare it."""
    waiting: Mapped[JsonObject] = mapped_column(default=dict)
    """How many answers it had taken and not moved when it last said so, by the project's id."""
    is_stuck: Mapped[bool] = mapped_column(default=False)
    """It lives and can move nothing, so nothing of it is awaited."""
