"""Webhooks of a project with their receiver, and a sender that is run by hand."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network

import pytest
import sqlalchemy as sa

from registry.database import transaction
from registry.models import Webhook, WebhookDelivery
from registry.outbound.addresses import AddressPolicy
from registry.outbox import emit
from registry.webhooks.sender import SenderSettings, send_due
from registry.webhooks.webhooks import create_webhook, get_webhook
from registry.wiring import Services
from tests.registry.webhooks.receiver import Receiver, receiving

LOOPBACK = AddressPolicy(networks=(ip_network("127.0.0.1"),))
SENDING = SenderSettings(LOOPBACK, timeout_seconds=1.0)


@dataclass
class Hooks:
    services: Services
    project_id: uuid.UUID

    def create(self, url: str, name: str = "ops", events: tuple[str, ...] = ()) -> Webhook:
        with transaction(self.services.sessions) as session:
            return create_webhook(session, self.project_id, name, url, events, policy=LOOPBACK)

    def emit(self, number: int = 0, event: str = "alias.moved") -> uuid.UUID:
        with transaction(self.services.sessions) as session:
            return emit(session, self.project_id, event, {"number": number}).id

    def send(self, settings: SenderSettings = SENDING) -> int:
        return send_due(self.services.sessions, settings)

    def webhook(self, name: str = "ops") -> Webhook:
        with transaction(self.services.sessions) as session:
            return get_webhook(session, self.project_id, name)

    def deliveries(self, name: str = "ops") -> list[WebhookDelivery]:
        with transaction(self.services.sessions) as session:
            query = sa.select(WebhookDelivery).join(Webhook).where(Webhook.name == name)
            return list(session.scalars(query.order_by(WebhookDelivery.seq)))

    def states(self, name: str = "ops") -> list[tuple[str, int, int | None]]:
        return [(row.state, row.attempts, row.last_status) for row in self.deliveries(name)]

    def let_pass(self, seconds: float) -> None:
        """Let time pass for what is stored: all of it becomes so much older."""
        past = sa.text(f"'{seconds} seconds'::interval")
        with transaction(self.services.sessions) as session:
            for column in ("next_attempt_at", "last_attempt_at", "created_at"):
                session.execute(sa.update(WebhookDelivery).values({column: getattr(WebhookDelivery, column) - past}))
            for column in ("failing_since", "leased_until", "former_until"):
                session.execute(sa.update(Webhook).values({column: getattr(Webhook, column) - past}))

    def execute(self, statement: str) -> None:
        with transaction(self.services.sessions) as session:
            session.connection().exec_driver_sql(statement)


@pytest.fixture
def hooks(services: Services, project_id: uuid.UUID) -> Hooks:
    return Hooks(services, project_id)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running
