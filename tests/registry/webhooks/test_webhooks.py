"""Webhooks and deliveries as rows: what is refused, redelivered, swept, and who sees a secret."""

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from registry.clock import utc_now
from registry.database import transaction
from registry.errors import (
    AddressRefused,
    DeliveryNotFound,
    Invalid,
    InvalidName,
    InvalidWebhook,
    NameTaken,
    TooManyWebhooks,
    WebhookDisabled,
    WebhookNotFound,
)
from registry.models import OutboxEvent, Project, Webhook, WebhookDelivery
from registry.outbound.addresses import AddressPolicy
from registry.webhooks import deliveries
from registry.webhooks.signing import new_secret
from registry.webhooks.webhooks import (
    MOST_WEBHOOKS,
    WebhookChange,
    change_webhook,
    check_url,
    create_webhook,
    delete_webhook,
    get_webhook,
    rotate_secret,
)
from tests.registry.webhooks.conftest import LOOPBACK, Hooks
from tests.registry.webhooks.receiver import Receiver, status

PUBLIC = AddressPolicy()


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("https://example.com/hook?token=1", None),
        ("http://93.184.215.14:8080", None),
        ("https://names-that-nobody-resolves.example/", None),
        ("ftp://example.com/", InvalidWebhook),
        ("file:///etc/passwd", InvalidWebhook),
        ("https://", InvalidWebhook),
        ("example.com/hook", InvalidWebhook),
        ("https://user:password@example.com/", InvalidWebhook),
        ("https://example.com/#part", InvalidWebhook),
        ("https://example.com:99999/", InvalidWebhook),
        ("https://exa mple.com\r\nX: y/", InvalidWebhook),
        ("https://example.com/\0", InvalidWebhook),
        ("https://[::1", InvalidWebhook),
        ("https://example.com/" + "x" * 2000, InvalidWebhook),
        ("http://127.0.0.1:8000/", AddressRefused),
        ("http://localhost/", AddressRefused),
        ("http://[::1]/", AddressRefused),
        ("http://10.0.0.1/", AddressRefused),
        ("http://169.254.169.254/latest/meta-data/", AddressRefused),
    ],
)
def test_urls(url: str, error: type[Invalid] | None) -> None:
    if error is None:
        check_url(url, PUBLIC)
        return
    with pytest.raises(error):
        check_url(url, PUBLIC)


def test_what_is_wrong_is_refused(hooks: Hooks) -> None:
    hooks.create("http://127.0.0.1:1/")
    with pytest.raises(NameTaken):
        hooks.create("http://127.0.0.1:2/")
    with pytest.raises(InvalidName):
        hooks.create("http://127.0.0.1:2/", "No Name")
    with pytest.raises(InvalidWebhook, match=r"'alias\.mooved'"):
        hooks.create("http://127.0.0.1:2/", "b", ("alias.mooved",))
    with transaction(hooks.services.sessions) as session, pytest.raises(WebhookNotFound):
        get_webhook(session, hooks.project_id, "a\0b")
    with transaction(hooks.services.sessions) as session, pytest.raises(InvalidWebhook):
        rotate_secret(session, hooks.project_id, "ops", overlap_hours=float("nan"))
    with transaction(hooks.services.sessions) as session, pytest.raises(AddressRefused):
        change_webhook(session, hooks.project_id, "ops", WebhookChange(url="http://10.1.1.1/"), policy=LOOPBACK)


def test_a_project_has_so_many_at_most_however_many_come_at_once(hooks: Hooks) -> None:
    def _create(number: int) -> bool:
        try:
            hooks.create("http://127.0.0.1:1/", f"n{number}")
        except TooManyWebhooks:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(_create, range(MOST_WEBHOOKS + 8)))
    assert created.count(True) == MOST_WEBHOOKS


def test_another_projects_webhooks_do_not_exist(hooks: Hooks) -> None:
    hooks.create("http://127.0.0.1:1/")
    with transaction(hooks.services.sessions) as session:
        other = Project(name="other")
        session.add(other)
        session.flush()
        with pytest.raises(WebhookNotFound):
            get_webhook(session, other.id, "ops")
        # Its names are its own.
        create_webhook(session, other.id, "ops", "http://127.0.0.1:2/", (), policy=LOOPBACK)


def test_redelivery_begins_anew_under_the_same_id(hooks: Hooks, receiver: Receiver) -> None:
    hooks.create(receiver.url)
    hooks.emit()
    receiver.answer = status(410)
    hooks.send()
    [row] = hooks.deliveries()
    with transaction(hooks.services.sessions) as session:
        webhook = get_webhook(session, hooks.project_id, "ops")
        with pytest.raises(WebhookDisabled, match="410"):
            deliveries.redeliver(session, webhook, row.id)
        with pytest.raises(WebhookDisabled):
            deliveries.send_test(session, webhook)
        webhook = change_webhook(session, hooks.project_id, "ops", WebhookChange(enabled=True), policy=LOOPBACK)
        assert webhook.disabled_reason is None
        assert deliveries.redeliver_given_up(session, webhook) == 1
        with pytest.raises(DeliveryNotFound):
            deliveries.redeliver(session, webhook, uuid.uuid4())
    receiver.answer = status(200)
    hooks.send()
    assert hooks.states() == [("delivered", 1, 200)]
    with transaction(hooks.services.sessions) as session:
        deliveries.redeliver(session, get_webhook(session, hooks.project_id, "ops"), row.id)
    hooks.send()
    assert receiver.ids == [receiver.ids[0]] * 3


def test_a_disabled_webhook_keeps_what_waits_and_gets_nothing_new(hooks: Hooks, receiver: Receiver) -> None:
    hooks.create(receiver.url)
    hooks.emit(1)
    with transaction(hooks.services.sessions) as session:
        change_webhook(session, hooks.project_id, "ops", WebhookChange(enabled=False), policy=LOOPBACK)
    hooks.emit(2)
    assert hooks.send() == 0
    with transaction(hooks.services.sessions) as session:
        change_webhook(session, hooks.project_id, "ops", WebhookChange(enabled=True), policy=LOOPBACK)
    hooks.emit(3)
    assert hooks.send() == 2
    assert [b'"number":1' in got.body for got in receiver.received] == [True, False]


def test_a_webhook_that_is_deleted_while_it_is_served(hooks: Hooks, receiver: Receiver) -> None:
    def _delete(*_: object) -> None:
        with transaction(hooks.services.sessions) as session:
            delete_webhook(session, hooks.project_id, "ops")
        status(200)(*_)

    receiver.answer = _delete
    hooks.create(receiver.url)
    hooks.emit(1)
    hooks.emit(2)
    assert hooks.send() == 1
    assert hooks.deliveries() == []


def test_a_redelivery_during_an_attempt_is_not_lost(hooks: Hooks, receiver: Receiver) -> None:
    def _redeliver(*arguments: object) -> None:
        if len(receiver.received) == 1:
            [row] = hooks.deliveries()
            with transaction(hooks.services.sessions) as session:
                deliveries.redeliver(session, get_webhook(session, hooks.project_id, "ops"), row.id)
        status(500 if len(receiver.received) == 1 else 200)(*arguments)

    receiver.answer = _redeliver
    hooks.create(receiver.url)
    hooks.emit()
    hooks.send()
    hooks.let_pass(10)
    hooks.send()
    assert hooks.states() == [("delivered", 2, 200)]


def test_a_sender_that_lost_its_lease_records_nothing(hooks: Hooks, receiver: Receiver) -> None:
    """It was stopped for longer than its lease, and another has the webhook."""
    hooks.create(receiver.url)
    hooks.emit()
    first, second, lease = uuid.uuid4(), uuid.uuid4(), timedelta(seconds=30)
    with transaction(hooks.services.sessions) as session:
        now = deliveries.database_now(session)
        [webhook_id] = deliveries.lease_webhooks(session, now, first, lease, most=5)
        row = deliveries.next_delivery(session, webhook_id, first, now, lease)
        assert row is not None
    with transaction(hooks.services.sessions) as session:
        assert deliveries.lease_webhooks(session, now, second, lease, most=5) == []
        assert deliveries.lease_webhooks(session, now + lease, second, lease, most=5) == [webhook_id]
    with transaction(hooks.services.sessions) as session:
        failed = deliveries.Attempt(None, "no answer")
        assert deliveries.next_delivery(session, webhook_id, first, now, lease) is None
        assert deliveries.record_attempt(session, webhook_id, row.id, first, failed, now) is None
        deliveries.release_webhook(session, webhook_id, first)
    assert hooks.states() == [("pending", 0, None)]
    assert hooks.webhook().lease_id == second


def test_two_senders_do_not_wait_for_each_other(hooks: Hooks) -> None:
    """Nor take the same: the second finds the rows locked and goes on without them."""
    for name in ("a", "b"):
        hooks.create("http://127.0.0.1:1/", name)
    hooks.emit()
    lease = timedelta(seconds=30)
    taken = threading.Event()

    def _second() -> int:
        with transaction(hooks.services.sessions) as session:
            now = deliveries.database_now(session)
            return len(deliveries.lease_webhooks(session, now, uuid.uuid4(), lease, most=5))

    with ThreadPoolExecutor(1) as pool, transaction(hooks.services.sessions) as session:
        now = deliveries.database_now(session)
        assert len(deliveries.lease_webhooks(session, now, uuid.uuid4(), lease, most=1)) == 1
        taken.set()
        assert pool.submit(_second).result(timeout=60) == 1


def test_thousands_that_wait_cost_a_look_little(hooks: Hooks) -> None:
    """After an outage: all of them failed once, and are due again or not."""
    for name in ("a", "b"):
        hooks.create("http://127.0.0.1:1/", name)
    hooks.execute(
        "insert into outbox_events (id, project_id, event, data, created_at) "
        f"select gen_random_uuid(), '{hooks.project_id}', 'alias.moved', '{{}}', now() from generate_series(1, 5000)"
    )
    hooks.execute(
        "insert into webhook_deliveries (id, webhook_id, event_id, state, attempts, next_attempt_at, created_at) "
        "select gen_random_uuid(), w.id, e.id, 'pending', 4, now() + (mod(e.seq, 2)) * interval '1 hour', now() "
        "from outbox_events e, webhooks w"
    )
    hooks.execute("analyze")
    lease, began = timedelta(seconds=30), time.monotonic()
    for _ in range(10):
        with transaction(hooks.services.sessions) as session:
            now, mine = deliveries.database_now(session), uuid.uuid4()
            taken = deliveries.lease_webhooks(session, now, mine, lease, most=5)
            for webhook_id in taken:
                assert deliveries.next_delivery(session, webhook_id, mine, now, lease) is not None
                deliveries.release_webhook(session, webhook_id, mine)
        assert len(taken) == 2
    assert time.monotonic() - began < 3


def test_old_events_are_swept_with_their_deliveries(hooks: Hooks) -> None:
    hooks.create("http://127.0.0.1:1/")
    old = hooks.emit(1)
    hooks.emit(2)
    hooks.execute(f"update outbox_events set created_at = created_at - interval '31 days' where id = '{old}'")
    with transaction(hooks.services.sessions) as session:
        assert deliveries.sweep_events(session, utc_now() - timedelta(days=30)) == 1
        assert deliveries.sweep_events(session, utc_now() - timedelta(days=30)) == 0
        assert session.scalar(sa.select(sa.func.count()).select_from(OutboxEvent)) == 1
    assert len(hooks.deliveries()) == 1


def test_everything_goes_with_its_project(hooks: Hooks) -> None:
    hooks.create("http://127.0.0.1:1/")
    hooks.emit()
    hooks.execute(f"delete from projects where id = '{hooks.project_id}'")
    with transaction(hooks.services.sessions) as session:
        for table in (Webhook, OutboxEvent, WebhookDelivery):
            assert session.scalar(sa.select(sa.func.count()).select_from(table)) == 0


def test_an_error_of_the_database_does_not_show_the_secret(hooks: Hooks) -> None:
    secret = new_secret()
    row = Webhook(project_id=uuid.uuid4(), name="ops", url="https://example.com", events=[], secret=secret)
    with transaction(hooks.services.sessions) as session:
        session.add(row)
        with pytest.raises(sa.exc.IntegrityError) as refused:
            session.flush()
        session.rollback()
    assert "'ops'" in str(refused.value)
    assert secret not in str(refused.value)
