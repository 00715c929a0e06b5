"""Rows of serving: routes, exposures (which version gave which answer), feedback, and answers of shadows."""

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, String, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.adapters import CANARY_PROMOTIONS, Adapter, Version
from registry.models.declarative import Base, JsonObject, created_at_column, owning_project_id, primary_id

ROUTE_KINDS = ("ab", "canary", "shadow")
ROUTE_STATES = ("live", "ended", "stopped", "promoted")
"""A person or a move of `champion` ends a route; a canary's own test makes it `stopped` or `promoted`."""
ROUTE_CHANGES = ("started", "ended", "stopped", "promoted")


class Route(Base):
    """One sharing of an adapter's traffic. Only its end is ever written; another sharing is another route."""

    __tablename__ = "routes"
    __table_args__ = (
        UniqueConstraint("adapter_id", "number"),
        CheckConstraint(f"kind in {ROUTE_KINDS}", name="kind"),
        CheckConstraint(f"state in {ROUTE_STATES}", name="state"),
        CheckConstraint("(state = 'live') = (ended_at is null)", name="ended_at"),
        CheckConstraint("level > 0 and level < 1", name="level"),
        CheckConstraint("smallest_effect > 0 and smallest_effect <= 1", name="smallest_effect"),
        CheckConstraint("shadow_share > 0 and shadow_share <= 1", name="shadow_share"),
        CheckConstraint(
            f"promotion in {CANARY_PROMOTIONS} and (kind = 'canary' or promotion = 'never')", name="promotion"
        ),
        CheckConstraint("(promotion = 'non_inferior') = (margin is not null)", name="margin_of_promotion"),
        CheckConstraint("margin > 0 and margin < 1", name="margin"),
        Index("uq_routes_live", "adapter_id", unique=True, postgresql_where=text("state = 'live'")),
    )
    id: Mapped[uuid.UUID] = primary_id()
    adapter_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("adapters.id", ondelete="CASCADE"))
    number: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), default="live")
    salt: Mapped[str]
    """Salt of the hash that assigns a session to a version; a route that replaces another keeps it."""
    shadow_share: Mapped[float | None]
    """Share of answers that the shadow answers too; null for other kinds."""
    level: Mapped[float]
    """Most false alarms that the comparison may raise, in [0, 1]."""
    smallest_effect: Mapped[float]
    """Smallest difference of mean rewards that matters; it bounds the sample size that is needed."""
    reward_source: Mapped[str | None]
    """The only source of feedback that the comparison counts; null counts the first of any source."""
    promotion: Mapped[str] = mapped_column(default="never")
    """Result that makes a canary the champion by itself (`registry.serving.canaries`)."""
    margin: Mapped[float | None]
    """Margin of promotion `non_inferior`: a canary that is worse by so much is not promoted. Null for the others."""
    created_at: Mapped[datetime] = created_at_column()
    ended_at: Mapped[datetime | None]
    adapter: Mapped[Adapter] = relationship()
    arms: Mapped[list["RouteArm"]] = relationship(order_by="RouteArm.place")


class RouteArm(Base):
    """A version on a route. The arm at place 0 is the control, which the others are compared with."""

    __tablename__ = "route_arms"
    __table_args__ = (
        UniqueConstraint("route_id", "version_id"),
        CheckConstraint("weight >= 0 and weight <= 1", name="weight"),
    )
    route_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("routes.id", ondelete="CASCADE"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("versions.id"), index=True)
    weight: Mapped[float]
    """Share of the sessions; the arms' weights sum to one. A shadow's is 0."""
    version: Mapped[Version] = relationship()


class RouteChange(Base):
    """History of a route: who, when, why, on what evidence."""

    __tablename__ = "route_changes"
    __table_args__ = (CheckConstraint(f"kind in {ROUTE_CHANGES}", name="kind"),)
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    route_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("routes.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str]
    reason: Mapped[str]
    evidence: Mapped[JsonObject]
    at: Mapped[datetime] = created_at_column()


class Exposure(Base):
    """A served answer, stamped with the version that gave it."""

    __tablename__ = "exposures"
    __table_args__ = (
        Index("ix_exposures_route_id_version_id", "route_id", "version_id"),
        Index("ix_exposures_project_id_at", "project_id", "at"),
    )
    completion_id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[uuid.UUID] = owning_project_id()
    version_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), index=True)
    """Null is the bare base, or an upstream."""
    upstream: Mapped[str | None]
    """The other endpoint's model that gave the answer, as `name/model`; null for our own answers."""
    route_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("routes.id", ondelete="CASCADE"))
    """The route that chose the version; null where the request or an alias did."""
    session_id: Mapped[str | None] = mapped_column(index=True)
    at: Mapped[datetime] = created_at_column()
    version: Mapped[Version | None] = relationship()


def _first_of_source(target: str) -> Index:
    columns = "project_id", target, "source"
    return Index(f"uq_feedback_{target}", *columns, unique=True, postgresql_where=text("part_of is null"))


class Feedback(Base):
    """A reward reported for an answer, a run, a session or a trajectory: the first of its source, which is final."""

    __tablename__ = "feedback"
    __table_args__ = (
        UniqueConstraint("completion_id", "source"),
        CheckConstraint("reward >= 0 and reward <= 1", name="reward"),
        CheckConstraint("not counted or (route_id is not null and unit is not null)", name="counted"),
        CheckConstraint("num_nonnulls(completion_id, run_id, session_id, trajectory_id) = 1", name="target"),
        Index("uq_feedback_counted", "route_id", "unit", unique=True, postgresql_where=text("counted")),
        _first_of_source("run_id"),
        _first_of_source("trajectory_id"),
        Index("ix_feedback_route_id_seq", "route_id", "seq"),
        Index("ix_feedback_project_id_seq", "project_id", "seq"),
        Index("ix_feedback_at", "at"),
        Index("ix_feedback_project_id_session_id", "project_id", "session_id"),
        Index(
            "ix_feedback_comment_words",
            func.to_tsvector(text("'simple'::regconfig"), text("comment")),
            postgresql_using="gin",
        ),
    )
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    completion_id: Mapped[str | None] = mapped_column(ForeignKey("exposures.completion_id", ondelete="CASCADE"))
    run_id: Mapped[uuid.UUID | None]
    """No key refers to what may be deleted: the reward stays for the comparison that counted it."""
    session_id: Mapped[str | None]
    trajectory_id: Mapped[uuid.UUID | None]
    part_of: Mapped[int | None] = mapped_column(BigInteger)
    """`seq` of the report that this row counts for another route too: the answers of a run or a session may have come
    by several. Null for the report itself, which alone has the comment and is listed."""
    project_id: Mapped[uuid.UUID] = owning_project_id()
    source: Mapped[str]
    """`user`, `grader`, `environment`, ..."""
    reward: Mapped[float]
    comment: Mapped[str]
    actor: Mapped[str]
    version_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"), index=True)
    """The exposure's version."""
    route_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("routes.id", ondelete="CASCADE"))
    """The exposure's route."""
    unit: Mapped[str | None]
    """The unit of observation: a session's id, or the completion's or the run's id without a session."""
    counted: Mapped[bool]
    """Whether the route's comparison reads it: the first feedback of its unit."""
    at: Mapped[datetime] = created_at_column()
    version: Mapped[Version | None] = relationship()


class ShadowAnswer(Base):
    """How a shadow's answer compared with the one that was returned. The answer itself is not kept."""

    __tablename__ = "shadow_answers"
    __table_args__ = (Index("ix_shadow_answers_route_id", "route_id"),)
    completion_id: Mapped[str] = mapped_column(
        ForeignKey("exposures.completion_id", ondelete="CASCADE"), primary_key=True
    )
    route_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("routes.id", ondelete="CASCADE"))
    same: Mapped[bool | None]
    """Whether the texts are equal but for white space at their ends; null where the shadow failed."""
    similarity: Mapped[float | None]
    """Share of words in common and in order, in [0, 1]."""
    seconds: Mapped[float]
    """Time that the returned answer's generation took."""
    shadow_seconds: Mapped[float | None]
    tokens: Mapped[int]
    """Length of the returned answer."""
    shadow_tokens: Mapped[int | None]
    error: Mapped[str | None]
    at: Mapped[datetime] = created_at_column()
