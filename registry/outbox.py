"""The outbox: what happened, as rows of the transaction in which it happened, for webhooks to tell.

An event is there if and only if what it tells of was committed. `registry.webhooks` sends it; this module knows of that
only which webhooks are to get it.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, func, insert, literal, or_, select
from sqlalchemy.orm import Session

from registry.models import WEBHOOK_EVENTS, OutboxEvent, Webhook, WebhookDelivery


def emit(session: Session, project_id: uuid.UUID, event: str, data: Mapping[str, Any]) -> OutboxEvent:
    """Record an event in the caller's transaction, to be sent to the webhooks that the project has for it.

    Args:
        event: one of `registry.models.WEBHOOK_EVENTS`.
        data: what receivers get: names and numbers that they can look up, as JSON; no secrets, nothing of users' texts.
    """
    wanted = or_(func.cardinality(Webhook.events) == 0, Webhook.events.any_() == event)
    return _emit(session, project_id, event, data, wanted)


def emit_to(session: Session, webhook: Webhook, event: str, data: Mapping[str, Any]) -> OutboxEvent:
    """Record an event for one webhook alone, whatever events it wants."""
    return _emit(session, webhook.project_id, event, data, Webhook.id == webhook.id)


def _emit(
    session: Session, project_id: uuid.UUID, event: str, data: Mapping[str, Any], wanted: ColumnElement[bool]
) -> OutboxEvent:
    if event not in WEBHOOK_EVENTS:
        raise RuntimeError(f"event {event!r} is not known; expected one of {list(WEBHOOK_EVENTS)}")
    row = OutboxEvent(project_id=project_id, event=event, data=dict(data))
    session.add(row)
    session.flush()
    now = func.now()
    receivers = (
        select(func.gen_random_uuid(), Webhook.id, literal(row.id), literal("pending"), literal(0), now, now)
        .where(Webhook.project_id == project_id, Webhook.enabled, wanted)
        # A webhook that is being deleted is waited for, and then left out: its row can't be referred to any more.
        .with_for_update(read=True, key_share=True)
    )
    columns = ["id", "webhook_id", "event_id", "state", "attempts", "next_attempt_at", "created_at"]
    session.execute(insert(WebhookDelivery).from_select(columns, receivers))
    return row
