"""Evaluations, which are the entries of R, and the gates that judge by them."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.adapters import GATE_POLICIES, GATE_RULES, Version
from registry.models.declarative import Base, JsonObject, created_at_column, primary_id
from registry.models.trajectories import Suite


class Evaluation(Base):
    """Score of one version, or of the bare base (`version_id` null), on one suite: an entry of R."""

    __tablename__ = "evaluations"
    __table_args__ = (
        UniqueConstraint(
            *("suite_id", "base_model", "base_revision", "base_identity", "version_id"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    id: Mapped[uuid.UUID] = primary_id()
    suite_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("suites.id", ondelete="CASCADE"))
    version_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), index=True)
    base_model: Mapped[str]
    base_revision: Mapped[str]
    base_identity: Mapped[JsonObject | None] = mapped_column(JSONB(none_as_null=True))
    """As the adapter's. Of an immutable row it alone may be filled in, once."""
    score: Mapped[float]
    """Mean item score, in [0, 1]."""
    items: Mapped[list[Any]]
    """One object for each place of the suite: `{"score": float, "answer": str}`; with strategy `isolated` also
    `routed`, the task whose memory answered, null for the bare base."""
    seconds: Mapped[float]
    created_at: Mapped[datetime] = created_at_column()
    suite: Mapped[Suite] = relationship()


class Gate(Base):
    """The recorded check of one version before an alias may move to it."""

    __tablename__ = "gates"
    __table_args__ = (
        CheckConstraint(f"rule in {GATE_RULES}", name="rule"),
        CheckConstraint(f"policy in {GATE_POLICIES}", name="policy"),
    )
    id: Mapped[uuid.UUID] = primary_id()
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), unique=True)
    champion_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("versions.id"))
    """The baseline, which it was compared with; null is the bare base. The column keeps its first name."""
    passed: Mapped[bool]
    margin: Mapped[float]
    rule: Mapped[str]
    level: Mapped[float]
    policy: Mapped[str]
    """The adapter's policy when the gate ran; under `manual` a pass still needs a person's approval."""
    comparisons: Mapped[list[Any]]
    """`registry.gates.gate.Comparison` as JSON for each task, with the suite that both were scored on."""
    reasons: Mapped[list[Any]]
    created_at: Mapped[datetime] = created_at_column()
    decision: Mapped["GateDecision | None"] = relationship(lazy="joined", innerjoin=False)
    champion: Mapped[Version | None] = relationship(foreign_keys=[champion_id])


class GateDecision(Base):
    """A person's decision on a version that passed its gate and waited. It is made once."""

    __tablename__ = "gate_decisions"
    gate_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("gates.id", ondelete="CASCADE"), primary_key=True)
    approved: Mapped[bool]
    actor: Mapped[str]
    reason: Mapped[str]
    at: Mapped[datetime] = created_at_column()
