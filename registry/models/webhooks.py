"""Rows of webhooks: the outbox of events, where they are sent, and what came of it."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Dialect,
    ForeignKey,
    Identity,
    Index,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.models.declarative import Base, created_at_column, owning_project_id, primary_id

WEBHOOK_EVENTS = (
    "alias.moved",
    "gate.decided",
    "route.ended",
    "job.failed",
    "loop.stopped",
    "loop.resumed",
    "webhook.test",
)
DELIVERY_STATES = ("pending", "delivered", "given_up")


class _Unshown(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return "'...'"


class _SecretText(TypeDecorator[str]):
    """A text that no error shows: those of the database have the parameters of their statement in them."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else _Unshown(value)


class OutboxEvent(Base):
    """Something that happened, written in the transaction in which it happened."""

    __tablename__ = "outbox_events"
    __table_args__ = (Index("ix_outbox_events_project_id_seq", "project_id", "seq"),)
    id: Mapped[uuid.UUID] = primary_id()
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), unique=True)
    project_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    event: Mapped[str] = mapped_column(String(64))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    """JSON that keeps the order of keys: each attempt sends the same bytes."""
    created_at: Mapped[datetime] = created_at_column()


class Webhook(Base):
    """A receiver of a project's events. Its secret is stored as it is, because every request is signed with it."""

    __tablename__ = "webhooks"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: Mapped[uuid.UUID] = primary_id()
    project_id: Mapped[uuid.UUID] = owning_project_id()
    name: Mapped[str]
    url: Mapped[str]
    events: Mapped[list[str]]
    """Events that are sent to it; empty for all."""
    enabled: Mapped[bool] = mapped_column(default=True)
    disabled_reason: Mapped[str | None]
    secret: Mapped[str] = mapped_column(_SecretText)
    former_secret: Mapped[str | None] = mapped_column(_SecretText)
    """The secrets of earlier rotations that sign beside the new one until `former_until`, the newest first, with spaces
    between them."""
    former_until: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    """When the first attempt failed after the last that succeeded."""
    lease_id: Mapped[uuid.UUID | None]
    """The sender that has the webhook: one at a time."""
    leased_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = created_at_column()


class WebhookDelivery(Base):
    """One event on its way to one webhook."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint(f"state in {DELIVERY_STATES}", name="state"),
        UniqueConstraint("webhook_id", "event_id"),
        Index("ix_webhook_deliveries_webhook_id_seq", "webhook_id", "seq"),
        Index(
            "ix_webhook_deliveries_pending", "webhook_id", "next_attempt_at", postgresql_where=text("state = 'pending'")
        ),
    )
    id: Mapped[uuid.UUID] = primary_id()
    seq: Mapped[int] = mapped_column(BigInteger, Identity(), unique=True)
    webhook_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("outbox_events.id", ondelete="CASCADE"), index=True)
    state: Mapped[str] = mapped_column(String(16), default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime | None]
    """Null unless pending."""
    last_attempt_at: Mapped[datetime | None]
    last_status: Mapped[int | None]
    """HTTP status of the last attempt; null if there was no answer."""
    last_error: Mapped[str | None]
    created_at: Mapped[datetime] = created_at_column()
    webhook: Mapped[Webhook] = relationship()
    event: Mapped[OutboxEvent] = relationship()
