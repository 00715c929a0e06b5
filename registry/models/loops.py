"""Rows of loops: recording, rewards, schedule, gate, canary and promotion of one adapter, as one thing."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.adapters import Adapter
from registry.models.declarative import Base, JsonObject, created_at_column, owning_project_id, primary_id
from registry.models.schedules import Schedule
from registry.models.trajectories import Task

LOOP_STATES = (
    *("running", "paused", "disk", "gate_rejected", "training_failed", "canary_stopped", "canary_without_traffic"),
    *("no_traffic", "no_rewards", "nothing_new", "champion_lost", "no_worker", "canary_undecided"),
)
"""`registry.loops.conditions` says what each means."""
LOOP_CHANGES = ("created", "changed", "paused", "stopped", "resumed", "deleted")


class Loop(Base):
    """An adapter has one at most. A deleted one stays for its history."""

    __tablename__ = "loops"
    __table_args__ = (
        CheckConstraint(f"state in {LOOP_STATES}", name="state"),
        CheckConstraint("quiet_hours > 0", name="quiet_hours"),
        CheckConstraint("most_failures >= 1", name="most_failures"),
        Index("uq_loops_adapter_id", "adapter_id", unique=True, postgresql_where=text("deleted_at is null")),
    )
    id: Mapped[uuid.UUID] = primary_id()
    project_id: Mapped[uuid.UUID] = owning_project_id()
    adapter_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"))
    task_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    schedule_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"), index=True)
    quiet_hours: Mapped[float]
    """How long traffic, rewards or a canary's answers may stay away before that is a state of its own."""
    most_failures: Mapped[int]
    """Versions in a row that may be rejected or stopped as worse, and trainings that may fail, before it holds."""
    setup: Mapped[JsonObject]
    """What it set that a deletion takes back: `recording`, the policy that it replaced and the one that it set; and
    `judge`, likewise by their ids."""
    state: Mapped[str] = mapped_column(String(32), default="running")
    held: Mapped[bool] = mapped_column(default=False)
    """Whether it starts no training as long as the state lasts."""
    reason: Mapped[str] = mapped_column(default="")
    advice: Mapped[str] = mapped_column(default="")
    since: Mapped[datetime] = created_at_column()
    """When the state began."""
    checked_at: Mapped[datetime | None]
    """When the beat last looked at it."""
    counted_from: Mapped[datetime] = created_at_column()
    """Failures and silences before are not counted: when it was made, or last resumed by hand."""
    paused_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = created_at_column()
    adapter: Mapped[Adapter] = relationship()
    task: Mapped[Task] = relationship()
    schedule: Mapped[Schedule] = relationship()


class LoopChange(Base):
    """One change of a loop or of its state: who, when, why."""

    __tablename__ = "loop_changes"
    __table_args__ = (
        CheckConstraint(f"kind in {LOOP_CHANGES}", name="kind"),
        CheckConstraint(f"from_state in {LOOP_STATES} and to_state in {LOOP_STATES}", name="states"),
        Index("ix_loop_changes_loop_id_seq", "loop_id", "seq"),
    )
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    loop_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("loops.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    from_state: Mapped[str | None] = mapped_column(String(32))
    to_state: Mapped[str | None] = mapped_column(String(32))
    actor: Mapped[str]
    reason: Mapped[str]
    evidence: Mapped[JsonObject]
    at: Mapped[datetime] = created_at_column()
