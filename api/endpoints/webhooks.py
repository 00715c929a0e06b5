"""Webhooks: where a project's events are sent, and what came of each delivery. All of it is for keys of scope `admin`:
a URL may be a secret itself."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.http.deps import Admin, ServicesDep
from api.http.pagination import Cursor, Page, PageLimit, decode_cursor, make_page
from api.http.schemas import Strict
from registry.database import transaction
from registry.models import Webhook, WebhookDelivery
from registry.outbound.addresses import AddressPolicy
from registry.settings import Settings
from registry.webhooks import deliveries, webhooks
from registry.webhooks.sender import message_id

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

Url = Annotated[str, Field(max_length=2000, description="`https://...`; it gets a POST for each event")]
Events = Annotated[list[str], Field(max_length=50, description="Events to send, such as `job.failed`; empty for all")]


class WebhookIn(Strict):
    name: str
    url: Url
    events: Annotated[Events, Field(default_factory=list)]


class WebhookChangeIn(Strict):
    url: Url | None = None
    events: Annotated[list[str] | None, Field(max_length=50, description="Replaces all of them; empty for all")] = None
    enabled: bool | None = None


class RotationIn(Strict):
    overlap_hours: Annotated[
        float, Field(description="How long the former secret signs beside the new one; 0 ends it at once")
    ] = webhooks.OVERLAP_HOURS


class WebhookOut(BaseModel):
    name: str
    url: str
    events: list[str]
    """Empty for all."""
    enabled: bool
    disabled_reason: str | None
    former_secret_until: datetime | None
    """Until then the secret before the last rotation signs too."""
    failing_since: datetime | None
    """When the first attempt failed after the last that was delivered."""
    deliveries: dict[str, int]
    """How many there are of each state: `pending`, `delivered`, `given_up`."""
    created_at: datetime

    @classmethod
    def of(cls, row: Webhook, counts: dict[uuid.UUID, dict[str, int]]) -> "WebhookOut":
        return cls(
            name=row.name,
            url=row.url,
            events=row.events,
            enabled=row.enabled,
            disabled_reason=row.disabled_reason,
            former_secret_until=row.former_until,
            failing_since=row.failing_since,
            deliveries={state: counts.get(row.id, {}).get(state, 0) for state in ("pending", "delivered", "given_up")},
            created_at=row.created_at,
        )


class WebhookSecretOut(WebhookOut):
    secret: str
    """Shown this once."""


class WebhookList(BaseModel):
    data: list[WebhookOut]


class DeliveryOut(BaseModel):
    id: uuid.UUID
    message_id: str
    """The header `webhook-id` of every attempt."""
    event: str
    data: dict[str, Any]
    state: str
    attempts: int
    next_attempt_at: datetime | None
    last_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    happened_at: datetime

    @classmethod
    def of(cls, row: WebhookDelivery) -> "DeliveryOut":
        return cls(
            id=row.id,
            message_id=message_id(row.event_id),
            event=row.event.event,
            data=row.event.data,
            state=row.state,
            attempts=row.attempts,
            next_attempt_at=row.next_attempt_at,
            last_attempt_at=row.last_attempt_at,
            last_status=row.last_status,
            last_error=row.last_error,
            happened_at=row.event.created_at,
        )


class RedeliveredOut(BaseModel):
    redelivered: int


@router.post("", status_code=201)
def create(body: WebhookIn, services: ServicesDep, caller: Admin) -> WebhookSecretOut:
    """The secret is shown this once; a receiver verifies signatures with it."""
    with transaction(services.sessions) as session:
        row = webhooks.create_webhook(
            session, caller.project_id, body.name, body.url, body.events, policy=_policy(services.settings)
        )
        return WebhookSecretOut(**_out(session, row).model_dump(), secret=row.secret)


@router.get("")
def index(services: ServicesDep, caller: Admin) -> WebhookList:
    with transaction(services.sessions) as session:
        counts = webhooks.count_deliveries(session, caller.project_id)
        rows = webhooks.list_webhooks(session, caller.project_id)
        return WebhookList(data=[WebhookOut.of(row, counts) for row in rows])


@router.get("/{name}")
def show(name: str, services: ServicesDep, caller: Admin) -> WebhookOut:
    with transaction(services.sessions) as session:
        return _out(session, webhooks.get_webhook(session, caller.project_id, name))


@router.patch("/{name}")
def change(name: str, body: WebhookChangeIn, services: ServicesDep, caller: Admin) -> WebhookOut:
    """What is left out stays. What waits goes to the new URL; while it is disabled, nothing new is queued."""
    wanted = webhooks.WebhookChange(body.url, body.events, body.enabled)
    with transaction(services.sessions) as session:
        policy = _policy(services.settings)
        return _out(session, webhooks.change_webhook(session, caller.project_id, name, wanted, policy=policy))


@router.delete("/{name}")
def delete(name: str, services: ServicesDep, caller: Admin) -> WebhookOut:
    """Its deliveries go too, also those that wait."""
    with transaction(services.sessions) as session:
        counts = webhooks.count_deliveries(session, caller.project_id)
        return WebhookOut.of(webhooks.delete_webhook(session, caller.project_id, name), counts)


@router.post("/{name}/rotate")
def rotate(name: str, body: RotationIn, services: ServicesDep, caller: Admin) -> WebhookSecretOut:
    """A new secret, shown this once; for some hours requests are signed with the former one too."""
    with transaction(services.sessions) as session:
        row = webhooks.rotate_secret(session, caller.project_id, name, overlap_hours=body.overlap_hours)
        return WebhookSecretOut(**_out(session, row).model_dump(), secret=row.secret)


@router.post("/{name}/test", status_code=202)
def send_test(name: str, services: ServicesDep, caller: Admin) -> DeliveryOut:
    """Queue an event `webhook.test` for this webhook alone; its delivery says what comes of it."""
    with transaction(services.sessions) as session:
        row = webhooks.get_webhook(session, caller.project_id, name)
        return DeliveryOut.of(deliveries.send_test(session, row))


@router.get("/{name}/deliveries")
def delivery_index(
    name: str,
    services: ServicesDep,
    caller: Admin,
    state: Annotated[Literal["pending", "delivered", "given_up"] | None, Query()] = None,
    cursor: Cursor = None,
    limit: PageLimit = 50,
) -> Page[DeliveryOut]:
    """Newest first."""
    with transaction(services.sessions) as session:
        webhook = webhooks.get_webhook(session, caller.project_id, name)
        before = decode_cursor(cursor) or None
        rows = deliveries.list_deliveries(session, webhook, state=state, before=before, limit=limit + 1)
        return make_page(rows, limit, seq=lambda row: row.seq, render=DeliveryOut.of)


@router.get("/{name}/deliveries/{delivery_id}")
def show_delivery(name: str, delivery_id: uuid.UUID, services: ServicesDep, caller: Admin) -> DeliveryOut:
    with transaction(services.sessions) as session:
        webhook = webhooks.get_webhook(session, caller.project_id, name)
        return DeliveryOut.of(deliveries.get_delivery(session, webhook, delivery_id))


@router.post("/{name}/deliveries/{delivery_id}/redeliver", status_code=202)
def redeliver(name: str, delivery_id: uuid.UUID, services: ServicesDep, caller: Admin) -> DeliveryOut:
    """Send it again now, whatever came of it, under the same message id."""
    with transaction(services.sessions) as session:
        webhook = webhooks.get_webhook(session, caller.project_id, name)
        return DeliveryOut.of(deliveries.redeliver(session, webhook, delivery_id))


@router.post("/{name}/redeliver", status_code=202)
def redeliver_given_up(name: str, services: ServicesDep, caller: Admin) -> RedeliveredOut:
    """Send all that were given up again."""
    with transaction(services.sessions) as session:
        webhook = webhooks.get_webhook(session, caller.project_id, name)
        return RedeliveredOut(redelivered=deliveries.redeliver_given_up(session, webhook))


def _policy(settings: Settings) -> AddressPolicy:
    return AddressPolicy(networks=settings.allowed_networks)


def _out(session: Session, row: Webhook) -> WebhookOut:
    return WebhookOut.of(row, webhooks.count_deliveries(session, row.project_id))
