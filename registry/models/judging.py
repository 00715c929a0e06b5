"""Rows of judges, of what they were asked, and of what they said."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String, UniqueConstraint, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.declarative import Base, JsonObject, created_at_column, owning_project_id, primary_id
from registry.models.trajectories import Task, Trajectory

JUDGE_KINDS = ("pointwise", "relative")
TOO_LONG = ("truncate", "refuse")
CALL_STATES = ("sent", "answered", "unparsable", "refused")
JUDGEMENT_STATES = ("scored", "undecided", "unparsable", "refused", "too_long")
"""Only `scored` has a score."""


class Judge(Base):
    """A model with a rubric. What it judges by never changes, so that its name means one thing in all rewards."""

    __tablename__ = "judges"
    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        CheckConstraint(f"kind in {JUDGE_KINDS}", name="kind"),
        CheckConstraint(f"too_long in {TOO_LONG}", name="too_long"),
        CheckConstraint("daily_calls >= 0", name="daily_calls"),
    )
    id: Mapped[uuid.UUID] = primary_id()
    project_id: Mapped[uuid.UUID] = owning_project_id()
    name: Mapped[str]
    kind: Mapped[str] = mapped_column(String(16))
    model: Mapped[str]
    """As it was named: `base`, `adapter`, `adapter@alias`, `adapter@7` or `upstream/model`."""
    rubric: Mapped[str]
    scale: Mapped[int]
    group_size: Mapped[int]
    temperature: Mapped[float | None]
    max_answer_tokens: Mapped[int]
    max_characters: Mapped[int]
    too_long: Mapped[str] = mapped_column(String(16))
    daily_calls: Mapped[int]
    """This and the six before it are the settings; `registry.judging.judges.JudgeSettings` says what each means."""
    created_at: Mapped[datetime] = created_at_column()


class TaskJudge(Base):
    """The judge that a task names, and the last job that the tick started for it."""

    __tablename__ = "task_judges"
    task_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True)
    judge_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("judges.id", ondelete="CASCADE"), index=True)
    last_job_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    named_at: Mapped[datetime] = created_at_column()
    task: Mapped[Task] = relationship()
    judge: Mapped[Judge] = relationship()


class JudgeCall(Base):
    """One question to a judge's model. The row is there before the question is sent: it is what budgets count."""

    __tablename__ = "judge_calls"
    __table_args__ = (
        CheckConstraint(f"state in {CALL_STATES}", name="state"),
        Index("ix_judge_calls_judge_id_prompt_hash", "judge_id", "prompt_hash"),
        Index("ix_judge_calls_judge_id_asked_at", "judge_id", "sent_at"),
    )
    id: Mapped[uuid.UUID] = primary_id()
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), unique=True)
    judge_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("judges.id", ondelete="CASCADE"))
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    trajectory_ids: Mapped[list[uuid.UUID]] = mapped_column(ARRAY(Uuid))
    """What the question shows."""
    model: Mapped[str]
    prompt_hash: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    answer: Mapped[JsonObject | None] = mapped_column(JSONB(none_as_null=True))
    """What was read of the answer, until a judgement is made of it."""
    prompt_tokens: Mapped[int]
    answer_tokens: Mapped[int]
    """Both are at most what the answer may cost, until it has come."""
    sent_at: Mapped[datetime] = created_at_column()
    answered_at: Mapped[datetime | None]


class Judgement(Base):
    """What a judge said of a trajectory; one for each pair of them."""

    __tablename__ = "judgements"
    __table_args__ = (
        UniqueConstraint("judge_id", "trajectory_id"),
        CheckConstraint(f"state in {JUDGEMENT_STATES}", name="state"),
        CheckConstraint("(state = 'scored') = (score is not null)", name="score"),
        CheckConstraint("score >= 0 and score <= 1", name="range"),
        Index("ix_judgements_judge_id_seq", "judge_id", "seq"),
    )
    id: Mapped[uuid.UUID] = primary_id()
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), unique=True)
    judge_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("judges.id", ondelete="CASCADE"))
    trajectory_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("trajectories.id", ondelete="CASCADE"), index=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    group_id: Mapped[uuid.UUID | None] = mapped_column(index=True)
    """Shared by the judgements of trajectories that were ranked together."""
    state: Mapped[str] = mapped_column(String(16))
    score: Mapped[float | None]
    """A reward in [0, 1]."""
    reason: Mapped[str]
    """The judge's words, or why there is no score."""
    verdict: Mapped[JsonObject]
    """What the score was made of: numbers, places in the orders, what was left out of the prompt."""
    model: Mapped[str]
    """Who answered: `base`, `adapter@7` or `upstream/model`."""
    prompt_hash: Mapped[str]
    calls: Mapped[int]
    prompt_tokens: Mapped[int]
    answer_tokens: Mapped[int]
    """This trajectory's share, where several were ranked together. So is `prompt_tokens`."""
    at: Mapped[datetime] = created_at_column()
    judge: Mapped[Judge] = relationship()
    trajectory: Mapped[Trajectory] = relationship()
