"""Deliveries: one row for each event and webhook. Who may send which next, and what comes of an attempt.

At least once: a delivery is pending until a receiver has answered 2xx, or it is given up after about a day. A sender
takes a webhook for a time, alone, and sends its deliveries one after the other; if it dies, the lease ends and another
sends again what it had not recorded. So the order of a webhook's events is kept but for those that fail: one holds the
later ones back for its first retries (`backoff.HOLDING_ATTEMPTS`), and is then passed by.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, delete, false, func, literal, or_, select, update
from sqlalchemy.orm import Session, aliased, joinedload

from registry.clock import FARTHEST_AHEAD
from registry.errors import DeliveryNotFound, WebhookDisabled
from registry.models import OutboxEvent, Webhook, WebhookDelivery
from registry.outbox import emit_to
from registry.webhooks.backoff import HOLDING_ATTEMPTS, delay_after

GONE = 410
_OUTAGE = timedelta(minutes=10)
_SWEPT_AT_ONCE = 1000


@dataclass(frozen=True)
class Attempt:
    """What came of one attempt."""

    status: int | None
    """HTTP status; None without an answer."""
    error: str | None
    """Why it failed; None if it was delivered."""
    wished_seconds: int = 0
    """The receiver's `Retry-After`."""


def database_now(session: Session) -> datetime:
    """The time by the database's clock, so that the clocks of senders need not agree."""
    return session.scalars(select(func.now())).one()


def list_deliveries(
    session: Session, webhook: Webhook, *, state: str | None = None, before: int | None, limit: int
) -> list[WebhookDelivery]:
    """Newest first.

    Args:
        before: the `seq` of the last delivery already seen.
    """
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id)
    if state is not None:
        query = query.where(WebhookDelivery.state == state)
    if before is not None:
        query = query.where(WebhookDelivery.seq < before)
    loaded = query.options(joinedload(WebhookDelivery.event)).order_by(WebhookDelivery.seq.desc())
    return list(session.scalars(loaded.limit(limit)))


def get_delivery(session: Session, webhook: Webhook, delivery_id: uuid.UUID, *, lock: bool = False) -> WebhookDelivery:
    """Raises DeliveryNotFound."""
    query = select(WebhookDelivery).where(WebhookDelivery.id == delivery_id, WebhookDelivery.webhook_id == webhook.id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    found = session.scalars(query.options(joinedload(WebhookDelivery.event, innerjoin=True))).one_or_none()
    if found is None:
        raise DeliveryNotFound(
            f"webhook {webhook.name!r} has no delivery {delivery_id}; "
            f"`memgen webhooks deliveries {webhook.name}` lists those of the last weeks"
        )
    return found


def redeliver(session: Session, webhook: Webhook, delivery_id: uuid.UUID) -> WebhookDelivery:
    """Send it again, whatever came of it, now and with as many attempts as a new one. The message's id stays.

    Raises:
        DeliveryNotFound, WebhookDisabled.
    """
    _check_enabled(webhook)
    delivery = get_delivery(session, webhook, delivery_id, lock=True)
    delivery.state, delivery.attempts, delivery.next_attempt_at = "pending", 0, database_now(session)
    session.flush()
    return delivery


def redeliver_given_up(session: Session, webhook: Webhook) -> int:
    """Send all that were given up again, as `redeliver`. Returns how many. Raises WebhookDisabled."""
    _check_enabled(webhook)
    given_up = WebhookDelivery.webhook_id == webhook.id, WebhookDelivery.state == "given_up"
    again = update(WebhookDelivery).where(*given_up).values(state="pending", attempts=0, next_attempt_at=func.now())
    return len(session.scalars(again.returning(WebhookDelivery.id)).all())


def send_test(session: Session, webhook: Webhook) -> WebhookDelivery:
    """Queue an event `webhook.test` for this webhook alone. Raises WebhookDisabled."""
    _check_enabled(webhook)
    event = emit_to(session, webhook, "webhook.test", {"webhook": webhook.name})
    query = select(WebhookDelivery).where(WebhookDelivery.event_id == event.id)
    return session.scalars(query.options(joinedload(WebhookDelivery.event))).one()


def lease_webhooks(
    session: Session, now: datetime, lease_id: uuid.UUID, lease: timedelta, *, most: int
) -> Sequence[uuid.UUID]:
    """Take webhooks that have something to send and no sender, the one that waits longest first."""
    due = select(func.min(WebhookDelivery.next_attempt_at)).where(_sendable(Webhook.id, now))
    waits_since = due.correlate(Webhook).scalar_subquery()
    # A lease that ends later than new ones do is of a clock that has been set back, and its sender may be gone.
    too_long = Webhook.leased_until > now + lease + FARTHEST_AHEAD
    free = or_(Webhook.leased_until.is_(None), Webhook.leased_until <= now, too_long)
    query = select(Webhook.id).where(Webhook.enabled, free, waits_since.is_not(None)).order_by(waits_since).limit(most)
    # Not the key: events that are recorded meanwhile refer to the row, and need not wait.
    taken = session.scalars(query.with_for_update(skip_locked=True, key_share=True)).all()
    session.execute(update(Webhook).where(Webhook.id.in_(taken)).values(lease_id=lease_id, leased_until=now + lease))
    return taken


def next_delivery(
    session: Session, webhook_id: uuid.UUID, lease_id: uuid.UUID, now: datetime, lease: timedelta
) -> WebhookDelivery | None:
    """The delivery to send now, with its event and webhook; the lease begins anew.

    Returns:
        None if there is none, or if another sender has the webhook by now.
    """
    webhook = _leased(session, webhook_id, lease_id)
    if webhook is None or not webhook.enabled:
        return None
    webhook.leased_until = now + lease
    query = select(WebhookDelivery).where(_sendable(literal(webhook_id), now))
    loaded = query.options(joinedload(WebhookDelivery.event), joinedload(WebhookDelivery.webhook))
    return session.scalars(loaded.order_by(WebhookDelivery.seq).limit(1)).one_or_none()


def record_attempt(
    session: Session,
    webhook_id: uuid.UUID,
    delivery_id: uuid.UUID,
    lease_id: uuid.UUID,
    attempt: Attempt,
    now: datetime,
) -> WebhookDelivery | None:
    """Record what came of an attempt; None if another sender has the webhook by now, or it is gone."""
    webhook = _leased(session, webhook_id, lease_id)
    query = select(WebhookDelivery).where(WebhookDelivery.id == delivery_id).with_for_update()
    delivery = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if webhook is None or delivery is None:
        return None
    delivery.attempts += 1
    delivery.last_attempt_at, delivery.last_status, delivery.last_error = now, attempt.status, attempt.error
    if attempt.error is None:
        delivery.state, delivery.next_attempt_at = "delivered", None
        _reachable_again(session, webhook, now)
    else:
        webhook.failing_since = webhook.failing_since or now
        delay = delay_after(delivery.attempts, wished_seconds=attempt.wished_seconds)
        if attempt.status == GONE:
            delay = None
            webhook.enabled = False
            webhook.disabled_reason = f"the receiver answered 410 (Gone) at {now:%Y-%m-%d %H:%M} UTC"
        delivery.state = "given_up" if delay is None else "pending"
        delivery.next_attempt_at = None if delay is None else now + delay
    session.flush()
    return delivery


def release_webhook(session: Session, webhook_id: uuid.UUID, lease_id: uuid.UUID) -> None:
    mine = Webhook.id == webhook_id, Webhook.lease_id == lease_id
    session.execute(update(Webhook).where(*mine).values(lease_id=None, leased_until=None))


def sweep_events(session: Session, older_than: datetime) -> int:
    """Remove some old events with their deliveries, whatever came of them. Returns how many events; 0 for no more."""
    old = select(OutboxEvent.id).where(OutboxEvent.created_at < older_than).order_by(OutboxEvent.seq)
    taken = old.limit(_SWEPT_AT_ONCE).with_for_update(skip_locked=True)
    gone = delete(OutboxEvent).where(OutboxEvent.id.in_(taken.scalar_subquery()))
    return len(session.scalars(gone.returning(OutboxEvent.id)).all())


def _sendable(webhook_id: SQLColumnExpression[uuid.UUID], now: datetime) -> ColumnElement[bool]:
    """Whether a delivery of the webhook is due, and no earlier one holds it back."""
    holding = aliased(WebhookDelivery)
    # Found once for a webhook, and not for each of its deliveries, of which thousands may wait after an outage.
    first_holding = select(func.min(holding.seq)).where(
        holding.webhook_id == webhook_id,
        holding.state == "pending",
        ~_is_due(holding, now),
        holding.attempts <= HOLDING_ATTEMPTS,
    )
    first = first_holding.correlate(Webhook).scalar_subquery()
    return and_(
        WebhookDelivery.webhook_id == webhook_id,
        WebhookDelivery.state == "pending",
        _is_due(WebhookDelivery, now),
        or_(first.is_(None), WebhookDelivery.seq < first),
    )


def _is_due(delivery: type[WebhookDelivery], now: datetime) -> ColumnElement[bool]:
    """Whether its time has come, or is one of a clock that has been set back: its last attempt lies ahead, or there was
    none, and the first is always due."""
    set_back = func.coalesce(delivery.last_attempt_at > now + FARTHEST_AHEAD, false())
    return or_(delivery.next_attempt_at <= now, delivery.attempts == 0, set_back)


def _leased(session: Session, webhook_id: uuid.UUID, lease_id: uuid.UUID) -> Webhook | None:
    """The webhook, locked, if this sender still has it."""
    query = select(Webhook).where(Webhook.id == webhook_id, Webhook.lease_id == lease_id)
    locked = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    return session.scalars(locked).one_or_none()


def _reachable_again(session: Session, webhook: Webhook, now: datetime) -> None:
    """After an outage, what failed in it need not wait for its time. After a short one it soon comes anyway; and a
    single message that the receiver can't take must not use up its attempts because others are delivered."""
    since, webhook.failing_since = webhook.failing_since, None
    if since is None or now - since < _OUTAGE:
        return
    waiting = WebhookDelivery.webhook_id == webhook.id, WebhookDelivery.state == "pending"
    session.execute(
        update(WebhookDelivery).where(*waiting, WebhookDelivery.next_attempt_at > now).values(next_attempt_at=now)
    )


def _check_enabled(webhook: Webhook) -> None:
    if not webhook.enabled:
        raise WebhookDisabled(
            f"webhook {webhook.name!r} is disabled ({webhook.disabled_reason}); enable it first: "
            f"`memgen webhooks change {webhook.name} --enable`"
        )
