"""Events are there if and only if what they tell of was committed, and go to the webhooks that want them."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from registry.database import transaction
from registry.models import OutboxEvent, Project, Webhook, WebhookDelivery
from registry.outbox import emit, emit_to
from registry.wiring import Services


def _webhook(services: Services, project_id: uuid.UUID, name: str, **values: object) -> uuid.UUID:
    fields = {"events": [], "enabled": True, **values}
    with transaction(services.sessions) as session:
        row = Webhook(project_id=project_id, name=name, url="https://example.com/", secret="whsec_YQ==", **fields)
        session.add(row)
        session.flush()
        return row.id


def _receivers(services: Services, event_id: uuid.UUID) -> set[str]:
    with transaction(services.sessions) as session:
        query = sa.select(Webhook.name).join(WebhookDelivery).where(WebhookDelivery.event_id == event_id)
        return set(session.scalars(query))


def test_an_event_goes_to_the_enabled_webhooks_of_its_project_that_want_it(
    services: Services, project_id: uuid.UUID
) -> None:
    with transaction(services.sessions) as session:
        other = Project(name="other")
        session.add(other)
        session.flush()
        other_id = other.id
    _webhook(services, project_id, "all")
    _webhook(services, project_id, "one-of-two", events=["job.failed", "alias.moved"])
    only = _webhook(services, project_id, "another-event", events=["job.failed"])
    _webhook(services, project_id, "off", enabled=False)
    _webhook(services, other_id, "foreign")
    with transaction(services.sessions) as session:
        moved = emit(session, project_id, "alias.moved", {"adapter": "bot"}).id
        tested = emit_to(session, session.get_one(Webhook, only), "webhook.test", {}).id
    assert _receivers(services, moved) == {"all", "one-of-two"}
    assert _receivers(services, tested) == {"another-event"}


def test_what_is_rolled_back_was_no_event(services: Services, project_id: uuid.UUID) -> None:
    _webhook(services, project_id, "all")

    def _fail() -> None:
        with transaction(services.sessions) as session:
            emit(session, project_id, "alias.moved", {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _fail()
    with transaction(services.sessions) as session:
        counts = [session.scalar(sa.select(sa.func.count()).select_from(t)) for t in (OutboxEvent, WebhookDelivery)]
    assert counts == [0, 0]


def test_an_event_that_nobody_knows_is_a_bug(services: Services, project_id: uuid.UUID) -> None:
    with pytest.raises(RuntimeError, match=r"'alias\.mooved' is not known"), transaction(services.sessions) as session:
        emit(session, project_id, "alias.mooved", {})


def test_the_deletion_of_a_webhook_fails_no_event(services: Services, project_id: uuid.UUID) -> None:
    """The event waits for the deletion, which is not committed yet, and then has one receiver less."""
    gone = _webhook(services, project_id, "gone")
    _webhook(services, project_id, "stays")
    begun = threading.Event()

    def _emit() -> uuid.UUID:
        with transaction(services.sessions) as session:
            begun.set()
            return emit(session, project_id, "alias.moved", {}).id

    with ThreadPoolExecutor(1) as pool:
        with transaction(services.sessions) as session:
            session.execute(sa.delete(Webhook).where(Webhook.id == gone))
            emitted = pool.submit(_emit)
            assert begun.wait(10)
            with pytest.raises(TimeoutError):
                emitted.result(timeout=0.3)
        event_id = emitted.result(timeout=10)
    assert _receivers(services, event_id) == {"stays"}
