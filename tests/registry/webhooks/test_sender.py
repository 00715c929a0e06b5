"""What receivers get, and what comes of receivers that hang, drip, refuse, redirect or are where nobody may go."""

import json
import threading
import time
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
import structlog
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from registry.database import transaction
from registry.models import OutboxEvent
from registry.outbound.addresses import AddressPolicy
from registry.webhooks import sender
from registry.webhooks.backoff import HOLDING_ATTEMPTS, MOST_ATTEMPTS, delay_after
from registry.webhooks.sender import SenderSettings, message_id
from registry.webhooks.webhooks import rotate_secret
from tests.registry.webhooks.conftest import LOOPBACK, Hooks
from tests.registry.webhooks.receiver import Receiver, receiving, status


def test_an_event_arrives_signed_as_the_standard_says(hooks: Hooks, receiver: Receiver) -> None:
    webhook = hooks.create(receiver.url)
    event_id = hooks.emit(7)
    assert hooks.send() == 1
    assert hooks.send() == 0
    [got] = receiver.received
    payload = Verifier(webhook.secret).verify(got.body, got.headers)
    with transaction(hooks.services.sessions) as session:
        happened = session.get_one(OutboxEvent, event_id).created_at
    assert payload == {"type": "alias.moved", "timestamp": happened.isoformat(), "data": {"number": 7}}
    assert got.headers["webhook-id"] == message_id(event_id)
    assert got.headers["content-type"] == "application/json"
    assert hooks.states() == [("delivered", 1, 204)]
    with pytest.raises(WebhookVerificationError):
        Verifier(webhook.secret).verify(got.body.replace(b"7", b"8"), got.headers)


def test_both_secrets_sign_until_the_overlap_ends(hooks: Hooks, receiver: Receiver) -> None:
    former = hooks.create(receiver.url).secret
    with transaction(hooks.services.sessions) as session:
        new = rotate_secret(session, hooks.project_id, "ops", overlap_hours=2).secret
    assert new != former
    hooks.emit()
    hooks.send()
    for secret in (former, new):
        Verifier(secret).verify(receiver.received[0].body, receiver.received[0].headers)
    hooks.let_pass(2 * 3600)
    hooks.emit()
    hooks.send()
    Verifier(new).verify(receiver.received[1].body, receiver.received[1].headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(former).verify(receiver.received[1].body, receiver.received[1].headers)


def test_a_second_rotation_keeps_what_the_first_has_promised(hooks: Hooks, receiver: Receiver) -> None:
    """The new secret was lost before any receiver had it."""
    first = hooks.create(receiver.url).secret
    for hours in (48, 1, 1, 1):
        with transaction(hooks.services.sessions) as session:
            newest = rotate_secret(session, hooks.project_id, "ops", overlap_hours=hours)
        if hours == 48:
            promised = newest.former_until
        hooks.emit()
        hooks.send()
        if len(receiver.received) <= 3:
            Verifier(first).verify(receiver.received[-1].body, receiver.received[-1].headers)
    assert newest.former_until == promised
    assert len(receiver.received[-1].headers["webhook-signature"].split()) == 4
    with transaction(hooks.services.sessions) as session:
        rotate_secret(session, hooks.project_id, "ops", overlap_hours=0)
    hooks.emit()
    hooks.send()
    assert " " not in receiver.received[-1].headers["webhook-signature"]


def test_after_a_leak_the_former_secret_ends_at_once(hooks: Hooks, receiver: Receiver) -> None:
    former = hooks.create(receiver.url).secret
    with transaction(hooks.services.sessions) as session:
        rotate_secret(session, hooks.project_id, "ops", overlap_hours=0)
    hooks.emit()
    hooks.send()
    assert " " not in receiver.received[0].headers["webhook-signature"]
    with pytest.raises(WebhookVerificationError):
        Verifier(former).verify(receiver.received[0].body, receiver.received[0].headers)


@pytest.mark.parametrize("kind", ["hang", "headers"])
def test_a_receiver_that_never_answers_holds_up_nobody_else(hooks: Hooks, receiver: Receiver, kind: str) -> None:
    receiver.answer = receiver.hang if kind == "hang" else receiver.drip(200, headers=True)
    hooks.create(receiver.url, "slow")
    with receiving() as other:
        hooks.create(other.url)
        for number in range(5):
            hooks.emit(number)
        began = time.monotonic()
        hooks.send(SenderSettings(LOOPBACK, timeout_seconds=3.0))
        assert len(other.received) == 5
        assert other.received[-1].ended - began < 2.9
    assert hooks.states() == [("delivered", 1, 204)] * 5
    first, *later = hooks.deliveries("slow")
    assert (first.state, first.attempts, first.last_error) == ("pending", 1, "no answer within 3 s")
    assert [row.attempts for row in later] == [0] * 4


def test_the_status_decides_and_the_body_is_not_waited_for(hooks: Hooks, receiver: Receiver) -> None:
    receiver.answer = receiver.drip(200, headers=False)
    hooks.create(receiver.url)
    hooks.emit()
    hooks.send()
    assert hooks.states() == [("delivered", 1, 200)], "a sender that waits for the body runs out of time"


def test_a_refusal_is_shown_to_a_bound_and_tried_again_later(hooks: Hooks, receiver: Receiver) -> None:
    receiver.answer = status(500, b"no \0 \xff such" + b"x" * 5_000_000)
    hooks.create(receiver.url)
    hooks.emit()
    assert hooks.send() == 1
    [row] = hooks.deliveries()
    assert row.last_error is not None
    assert row.last_error.startswith("answered 500: no � suchxxx")
    assert len(row.last_error) < 600
    assert row.next_attempt_at is not None
    assert row.last_attempt_at is not None
    assert timedelta(seconds=4) <= row.next_attempt_at - row.last_attempt_at <= timedelta(seconds=6)
    assert hooks.webhook().failing_since is not None
    receiver.answer = status(200)
    hooks.let_pass(7)
    assert hooks.send() == 1
    assert hooks.states() == [("delivered", 2, 200)]
    assert hooks.webhook().failing_since is None
    first, second = receiver.received
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])


def test_a_wish_for_a_later_attempt_is_kept_to_a_bound(hooks: Hooks, receiver: Receiver) -> None:
    hooks.create(receiver.url)
    for wish, least, most in (("120", 120, 121), ("999999999", 3600, 3601), ("soon", 4, 6), ("9" * 50, 4, 6)):
        receiver.answer = status(503, Retry_After=wish)
        hooks.emit()
        hooks.send()
        row = hooks.deliveries()[-1]
        assert row.next_attempt_at is not None
        assert row.last_attempt_at is not None
        assert least <= (row.next_attempt_at - row.last_attempt_at).total_seconds() <= most
        hooks.let_pass(3 * 3600)
        receiver.answer = status(204)
        hooks.send()


def test_attempts_end_after_about_a_day(hooks: Hooks, receiver: Receiver) -> None:
    delays = [delay_after(attempts) for attempts in range(1, MOST_ATTEMPTS + 1)]
    assert delays[-1] is None
    assert timedelta(hours=20) < sum((delay for delay in delays if delay), timedelta()) < timedelta(hours=30)
    receiver.answer = status(500)
    hooks.create(receiver.url)
    hooks.emit()
    hooks.execute(f"update webhook_deliveries set attempts = {MOST_ATTEMPTS - 2}")
    assert hooks.send() == 1
    assert hooks.states() == [("pending", MOST_ATTEMPTS - 1, 500)]
    hooks.let_pass(10 * 3600)
    assert hooks.send() == 1
    assert hooks.states() == [("given_up", MOST_ATTEMPTS, 500)]
    assert hooks.send() == 0


def test_the_delays_differ_between_deliveries() -> None:
    """Many that failed together do not come back together."""
    delays = {delay_after(3) for _ in range(20)}
    assert len(delays) > 10
    assert all(delay and timedelta(seconds=96) <= delay <= timedelta(seconds=144) for delay in delays)


def test_a_receiver_that_is_gone_for_good_gets_no_more(hooks: Hooks, receiver: Receiver) -> None:
    receiver.answer = status(410)
    hooks.create(receiver.url)
    hooks.emit(1)
    hooks.emit(2)
    assert hooks.send() == 1
    webhook = hooks.webhook()
    assert not webhook.enabled
    assert webhook.disabled_reason is not None
    assert webhook.disabled_reason.startswith("the receiver answered 410 (Gone) at ")
    assert hooks.states() == [("given_up", 1, 410), ("pending", 0, None)]
    hooks.emit(3)
    assert (hooks.send(), len(receiver.received), len(hooks.deliveries())) == (0, 1, 2)


def test_a_redirect_is_not_followed(hooks: Hooks, receiver: Receiver) -> None:
    with receiving() as private:
        receiver.answer = status(307, Location=private.url)
        hooks.create(receiver.url)
        hooks.emit()
        assert hooks.send() == 1
        assert private.received == []
    [row] = hooks.deliveries()
    assert (row.state, row.last_status) == ("pending", 307)
    assert row.last_error == "answered 307, a redirect, which is not followed; give the webhook the final URL"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]"])
def test_a_private_address_is_refused_when_it_is_connected_to(hooks: Hooks, receiver: Receiver, host: str) -> None:
    """Also where the webhook was made while the address was allowed, or where it was a name."""
    hooks.create(receiver.url)
    url = receiver.url.replace("127.0.0.1", host)
    hooks.execute(f"update webhooks set url = '{url}'")
    hooks.emit()
    assert hooks.send(SenderSettings(AddressPolicy(), timeout_seconds=1.0)) == 1
    assert receiver.received == []
    [row] = hooks.deliveries()
    assert (row.state, row.last_status) == ("pending", None)
    assert row.last_error is not None
    assert "address, which the service does not connect to" in row.last_error


def test_nobody_listens(hooks: Hooks) -> None:
    with receiving() as stopped:
        url = stopped.url
    hooks.create(url)
    hooks.emit()
    hooks.send()
    [row] = hooks.deliveries()
    assert (row.state, row.last_status) == ("pending", None)
    assert row.last_error is not None
    assert row.last_error.startswith("ConnectError: ")


def test_no_log_has_the_secret_or_the_url(hooks: Hooks, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = structlog.testing.CapturingLogger()
    monkeypatch.setattr(sender, "log", captured)
    receiver.answer = status(410)
    webhook = hooks.create(receiver.url + "/token-in-path")
    hooks.emit()
    hooks.send()
    assert [call.args for call in captured.calls] == [("a delivery to a webhook is given up",)]
    assert not any(part in str(captured.calls) for part in (webhook.secret, "whsec", "token-in-path"))


def test_events_come_in_their_order(hooks: Hooks, receiver: Receiver) -> None:
    hooks.create(receiver.url)
    ids = [message_id(hooks.emit(number)) for number in range(70)]
    assert hooks.send() == 70
    assert receiver.ids == ids


def test_a_failed_event_holds_the_later_ones_back_for_its_first_retries_only(hooks: Hooks, receiver: Receiver) -> None:
    """The receiver can't take the first event, and has nothing against the others."""
    hooks.create(receiver.url)
    ids = [message_id(hooks.emit(number)) for number in range(3)]
    receiver.answer = lambda handler, got: status(500 if b'"number":0' in got.body else 200)(handler, got)
    for attempt in range(HOLDING_ATTEMPTS):
        assert (hooks.send(), receiver.ids) == (1, [ids[0]] * (attempt + 1))
        assert hooks.send() == 0
        hooks.let_pass(150)
    assert hooks.send() == 3
    assert receiver.ids == [ids[0]] * (HOLDING_ATTEMPTS + 1) + ids[1:]
    assert hooks.states()[0] == ("pending", HOLDING_ATTEMPTS + 1, 500)
    # It was no outage: the others' success does not bring its next attempt forward.
    assert hooks.send() == 0


def test_after_an_outage_what_failed_comes_at_once_and_in_order(hooks: Hooks, receiver: Receiver) -> None:
    hooks.create(receiver.url)
    ids = [message_id(hooks.emit(number)) for number in range(3)]
    receiver.answer = status(503)
    for _ in range(12):
        hooks.send()
        hooks.let_pass(300)
    tried = len(receiver.received)
    assert {row.attempts > 0 for row in hooks.deliveries()} == {True}
    receiver.answer = status(200)
    while not hooks.send():
        hooks.let_pass(300)
    assert {row.state for row in hooks.deliveries()} == {"delivered"}
    assert sorted(receiver.ids[tried:]) == sorted(ids)


def test_two_senders_at_once_send_each_once_and_one_at_a_time(hooks: Hooks, receiver: Receiver) -> None:
    def _slowly(handler: object, got: object) -> None:
        time.sleep(0.02)
        status(200)(handler, got)

    receiver.answer = _slowly
    hooks.create(receiver.url)
    ids = [message_id(hooks.emit(number)) for number in range(20)]
    senders = [threading.Thread(target=hooks.send) for _ in range(4)]
    for each in senders:
        each.start()
    for each in senders:
        each.join()
    hooks.send()
    assert receiver.ids == ids
    times = [(got.began, got.ended) for got in receiver.received]
    assert all(ended <= began for (_, ended), (began, _) in pairwise(times))


def test_the_time_stamp_is_the_attempts(hooks: Hooks, receiver: Receiver) -> None:
    """A receiver refuses old ones; a repetition after hours is none."""
    hooks.create(receiver.url)
    hooks.emit()
    hooks.execute("update outbox_events set created_at = created_at - interval '5 hours'")
    hooks.send()
    [got] = receiver.received
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 5
    happened = datetime.fromisoformat(json.loads(got.body)["timestamp"]).timestamp()
    assert time.time() - happened > 4.9 * 3600


DAY_SECONDS = 86_400.0


def test_when_the_clock_is_set_back_what_waits_is_sent_at_once(hooks: Hooks, receiver: Receiver) -> None:
    hooks.create(receiver.url)
    receiver.answer = status(500)
    hooks.emit(1)
    assert hooks.send() == 1
    hooks.emit(2)
    hooks.execute("update webhooks set leased_until = now(), lease_id = gen_random_uuid()")
    hooks.let_pass(-DAY_SECONDS)
    receiver.answer = status(204)
    assert hooks.send() == 2
    assert [json.loads(got.body)["data"]["number"] for got in receiver.received] == [1, 1, 2]
    assert [state for state, _, _ in hooks.states()] == ["delivered", "delivered"]


def test_after_the_clock_was_set_back_retries_wait_as_ever(hooks: Hooks, receiver: Receiver) -> None:
    hooks.create(receiver.url)
    receiver.answer = status(500)
    hooks.emit()
    assert hooks.send() == 1
    hooks.let_pass(-DAY_SECONDS)
    assert hooks.send() == 1
    assert hooks.send() == 0
    hooks.let_pass(60)
    assert hooks.send() == 1
