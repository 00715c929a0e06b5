"""Webhooks: receivers of a project's events. A secret is given out when it is made and never again."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import httpx
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import InvalidWebhook, NameTaken, TooManyWebhooks, WebhookNotFound
from registry.json_text import is_storable, show
from registry.models import WEBHOOK_EVENTS, Project, Webhook, WebhookDelivery
from registry.names import check_name, is_valid_name
from registry.outbound.addresses import AddressPolicy, check_literal
from registry.webhooks.signing import new_secret

MOST_WEBHOOKS = 20
"""Webhooks of a project: fewer than a sender serves at once, so that one project's can't hold up those of others."""
OVERLAP_HOURS = 24.0
MOST_OVERLAP_HOURS = 24.0 * 30
_MOST_FORMER = 3
"""Secrets of earlier rotations that sign beside the newest at most."""
_MOST_URL_CHARACTERS = 2000


@dataclass(frozen=True)
class WebhookChange:
    """What is to become of a webhook; None leaves it."""

    url: str | None = None
    events: Sequence[str] | None = None
    enabled: bool | None = None


def create_webhook(
    session: Session,
    project_id: uuid.UUID,
    name: str,
    url: str,
    events: Sequence[str],
    *,
    policy: AddressPolicy,
) -> Webhook:
    """A new webhook, whose `secret` the caller shows this once.

    Args:
        events: empty for all, also those that later releases add.

    Raises:
        InvalidName, InvalidWebhook, AddressRefused, NameTaken, TooManyWebhooks.
    """
    check_name("webhook", name)
    check_url(url, policy)
    _check_events(events)
    # Locked, so that two creations at once count each other.
    session.get_one(Project, project_id, with_for_update={"key_share": True})
    count = session.scalar(select(func.count()).where(Webhook.project_id == project_id)) or 0
    if count >= MOST_WEBHOOKS:
        raise TooManyWebhooks(f"this project has {count} webhooks; expected {MOST_WEBHOOKS} at most: delete one first")
    webhook = Webhook(project_id=project_id, name=name, url=url, events=_ordered(events), secret=new_secret())
    try:
        with session.begin_nested():
            session.add(webhook)
    except IntegrityError as error:
        raise NameTaken(f"a webhook named {name!r} exists already; change that one, or choose another name") from error
    return webhook


def get_webhook(session: Session, project_id: uuid.UUID, name: str, *, lock: bool = False) -> Webhook:
    """Raises WebhookNotFound."""
    query = select(Webhook).where(Webhook.project_id == project_id, Webhook.name == name)
    if lock:
        query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    found = session.scalars(query).one_or_none() if is_valid_name(name) else None
    if found is None:
        raise WebhookNotFound(f"no webhook named {show(name)} in this project; `memgen webhooks list` shows them")
    return found


def list_webhooks(session: Session, project_id: uuid.UUID) -> list[Webhook]:
    """Sorted by name."""
    return list(session.scalars(select(Webhook).where(Webhook.project_id == project_id).order_by(Webhook.name)))


def change_webhook(
    session: Session, project_id: uuid.UUID, name: str, change: WebhookChange, *, policy: AddressPolicy
) -> Webhook:
    """Apply a change. What waits is sent to the new URL, and waits on while the webhook is disabled.

    Raises:
        WebhookNotFound, InvalidWebhook, AddressRefused.
    """
    webhook = get_webhook(session, project_id, name, lock=True)
    if change.url is not None:
        check_url(change.url, policy)
        webhook.url = change.url
    if change.events is not None:
        _check_events(change.events)
        webhook.events = _ordered(change.events)
    if change.enabled is True:
        webhook.enabled, webhook.disabled_reason = True, None
    elif change.enabled is False and webhook.enabled:
        webhook.enabled, webhook.disabled_reason = False, "disabled by hand"
    session.flush()
    return webhook


def rotate_secret(
    session: Session, project_id: uuid.UUID, name: str, *, overlap_hours: float = OVERLAP_HOURS
) -> Webhook:
    """Give it a new `secret`, which the caller shows this once.

    Args:
        overlap_hours: how long requests are signed with the former secret too, and with those before it that still
            sign: their receivers were promised that. 0 ends all of them at once, as after a leak.

    Raises:
        WebhookNotFound, InvalidWebhook.
    """
    if not 0 <= overlap_hours <= MOST_OVERLAP_HOURS:
        raise InvalidWebhook(f"overlap_hours is {overlap_hours}; expected 0 to {MOST_OVERLAP_HOURS:g}")
    webhook = get_webhook(session, project_id, name, lock=True)
    now = utc_now()
    ends = [now + timedelta(hours=overlap_hours), *([webhook.former_until] if webhook.former_until else ())]
    webhook.former_secret = " ".join(current_keys(webhook, now)[:_MOST_FORMER]) if overlap_hours else None
    webhook.former_until = max(ends) if overlap_hours else None
    webhook.secret = new_secret()
    session.flush()
    return webhook


def delete_webhook(session: Session, project_id: uuid.UUID, name: str) -> Webhook:
    """Its deliveries go with it, also those that wait. Raises WebhookNotFound."""
    webhook = get_webhook(session, project_id, name, lock=True)
    session.delete(webhook)
    session.flush()
    return webhook


def count_deliveries(session: Session, project_id: uuid.UUID) -> dict[uuid.UUID, dict[str, int]]:
    """Deliveries of a project's webhooks that are not swept yet, by webhook and state."""
    query = select(WebhookDelivery.webhook_id, WebhookDelivery.state, func.count()).join(Webhook)
    counted = query.where(Webhook.project_id == project_id).group_by(WebhookDelivery.webhook_id, WebhookDelivery.state)
    found: dict[uuid.UUID, dict[str, int]] = {}
    for webhook_id, state, count in session.execute(counted):
        found.setdefault(webhook_id, {})[state] = count
    return found


def current_keys(webhook: Webhook, now: datetime) -> list[str]:
    """The secrets that sign at a time, the newest first."""
    former = webhook.former_secret if webhook.former_until is not None and now < webhook.former_until else None
    return [webhook.secret, *(former or "").split()]


def check_url(url: str, policy: AddressPolicy) -> None:
    """Whether events may be sent there. A name is resolved, and its address checked, at every attempt.

    Raises:
        InvalidWebhook: no http or https URL with a host, or one with a user, a password or a fragment.
        AddressRefused: its host is an address that the policy does not allow.
    """
    if len(url) > _MOST_URL_CHARACTERS or not is_storable(url):
        raise InvalidWebhook(
            f"the url has {len(url)} characters; expected {_MOST_URL_CHARACTERS} printable ones at most"
        )
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise InvalidWebhook(f"the url can't be read: {error}; expected such as https://example.com/hook") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidWebhook(f"the url begins with {show(url[:20])}; expected such as https://example.com/hook")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise InvalidWebhook(f"the url's port is {parsed.port}; expected 1 to 65535")
    if parsed.userinfo or parsed.fragment:
        raise InvalidWebhook("the url has a user, a password or a fragment; expected none: requests are signed instead")
    check_literal(policy, parsed.host)


def _check_events(events: Sequence[str]) -> None:
    unknown = [event for event in events if event not in WEBHOOK_EVENTS]
    if unknown:
        raise InvalidWebhook(f"events {show(unknown)}; expected some of {list(WEBHOOK_EVENTS)}, or none for all")


def _ordered(events: Sequence[str]) -> list[str]:
    return [event for event in WEBHOOK_EVENTS if event in events]
