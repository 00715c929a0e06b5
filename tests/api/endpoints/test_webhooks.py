"""Webhooks over HTTP and on the command line: secrets shown once, scopes, other projects, a delivery's whole way."""

import json
import threading
import uuid
from collections.abc import Iterator

import httpx
import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from memgen_client import ApiError, JsonClient
from registry.database import transaction
from registry.keys import create_key
from registry.models import Project
from registry.outbox import emit
from registry.settings import Settings
from registry.webhooks.sender import send_until
from registry.wiring import Services
from tests.api.cli.conftest import no_service
from tests.api.cli.invoking import fail, succeed
from tests.api.live_api import serve
from tests.registry.webhooks.conftest import SENDING, receiver
from tests.registry.webhooks.receiver import Receiver, status

__all__ = ["no_service", "receiver"]


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    with serve(settings.model_copy(update={"outbound_networks": "127.0.0.1"})) as found:
        yield found


@pytest.fixture
def client(url: str, api_key: str) -> Iterator[JsonClient]:
    with JsonClient(url, api_key) as connected:
        yield connected


@pytest.fixture
def sender(services: Services) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=send_until, args=(stop, services.sessions, SENDING))
    thread.start()
    yield
    stop.set()
    thread.join()


def _emit(services: Services, project_id: uuid.UUID, event: str) -> None:
    with transaction(services.sessions) as session:
        emit(session, project_id, event, {"adapter": "bot"})


def test_a_secret_is_shown_when_it_is_made_and_never_again(
    client: JsonClient, services: Services, project_id: uuid.UUID, receiver: Receiver
) -> None:
    made = client.webhooks.create("ops", receiver.url, events=["job.failed", "alias.moved"])
    assert made["events"] == ["alias.moved", "job.failed"]
    rotated = client.webhooks.rotate("ops")
    assert rotated["secret"] != made["secret"]
    assert rotated["former_secret_until"] is not None
    _emit(services, project_id, "job.failed")
    replies = [
        client.webhooks.list(),
        client.webhooks.get("ops"),
        client.webhooks.deliveries("ops"),
        client.webhooks.test("ops"),
        client.webhooks.change("ops", events=[]),
        client.webhooks.delete("ops"),
    ]
    assert made["secret"].startswith("whsec_")
    assert "whsec_" not in json.dumps(replies)
    assert client.webhooks.list() == []


def test_a_delivery_from_its_event_to_its_redelivery(
    client: JsonClient, services: Services, project_id: uuid.UUID, receiver: Receiver, sender: None
) -> None:
    secret = client.webhooks.create("ops", receiver.url, events=["job.failed"])["secret"]
    _emit(services, project_id, "alias.moved")
    receiver.answer = status(410)
    _emit(services, project_id, "job.failed")
    [given_up] = _once(client, "given_up")
    assert (given_up["event"], given_up["data"]) == ("job.failed", {"adapter": "bot"})
    assert (given_up["attempts"], given_up["last_status"], given_up["next_attempt_at"]) == (1, 410, None)
    shown = client.webhooks.get("ops")
    assert (shown["enabled"], shown["deliveries"]) == (False, {"pending": 0, "delivered": 0, "given_up": 1})
    with pytest.raises(ApiError) as refused:
        client.webhooks.redeliver("ops", given_up["id"])
    assert (refused.value.status, refused.value.code) == (409, "webhook_disabled")
    receiver.answer = status(200)
    client.webhooks.change("ops", enabled=True)
    assert client.webhooks.redeliver("ops", given_up["id"])["state"] == "pending"
    [delivered] = _once(client, "delivered")
    assert delivered["message_id"] == given_up["message_id"] == receiver.ids[0] == receiver.ids[1]
    verified = Verifier(secret).verify(receiver.received[1].body, receiver.received[1].headers)
    assert verified["data"] == {"adapter": "bot"}
    assert client.webhooks.redeliver_given_up("ops") == 0


def _once(client: JsonClient, state: str) -> list[dict[str, object]]:
    for _ in range(200):
        found = client.webhooks.deliveries("ops", state=state)["data"]
        if found:
            return found
        threading.Event().wait(0.05)
    raise AssertionError(f"no delivery is {state}")


def test_deliveries_come_in_pages(client: JsonClient, services: Services, project_id: uuid.UUID) -> None:
    client.webhooks.create("ops", "http://127.0.0.1:1/")
    for _ in range(5):
        _emit(services, project_id, "alias.moved")
    first = client.webhooks.deliveries("ops", limit=3)
    rest = client.webhooks.deliveries("ops", limit=3, cursor=first["next_cursor"])
    assert (len(first["data"]), len(rest["data"]), rest["next_cursor"]) == (3, 2, None)
    assert len({row["id"] for row in first["data"] + rest["data"]}) == 5


def test_only_admins_and_only_of_the_project(
    url: str, client: JsonClient, services: Services, project_id: uuid.UUID
) -> None:
    client.webhooks.create("ops", "http://127.0.0.1:1/")
    delivery = client.webhooks.test("ops")["id"]
    with transaction(services.sessions) as session:
        other = Project(name="other")
        session.add(other)
        session.flush()
        _, foreign = create_key(session, other.id, "k", ["admin"])
        _, weak = create_key(session, project_id, "k", ["read", "write", "train", "promote"])
    with JsonClient(url, foreign) as stranger:
        assert stranger.webhooks.list() == []
        stranger.webhooks.create("ops", "http://127.0.0.1:1/")
        with pytest.raises(ApiError) as refused:
            stranger.webhooks.delivery("ops", delivery)
        assert (refused.value.status, refused.value.code) == (404, "delivery_not_found")
        stranger.webhooks.delete("ops")
        with pytest.raises(ApiError) as refused:
            stranger.webhooks.rotate("ops")
        assert refused.value.code == "webhook_not_found"
    with JsonClient(url, weak) as reader:
        with pytest.raises(ApiError) as refused:
            reader.webhooks.list()
        assert refused.value.code == "missing_scope"


def test_refusals_over_http(url: str, api_key: str) -> None:
    headers = {"Authorization": f"Bearer {api_key}"}
    with httpx.Client(base_url=url, headers=headers) as http:
        for body, code in (
            ({"name": "a", "url": "http://10.0.0.1/"}, "address_refused"),
            ({"name": "a", "url": "https://u:p@example.com/"}, "invalid_webhook"),
            ({"name": "a", "url": "https://example.com/", "events": ["x"]}, "invalid_webhook"),
            ({"name": "a", "url": "https://example.com/", "secret": "whsec_mine"}, "invalid_request"),
        ):
            refused = http.post("/v1/webhooks", json=body)
            assert (refused.status_code, refused.json()["type"]) == (422, f"urn:memgen:problem:{code}")
            assert "whsec_mine" not in refused.text


def test_the_command_line(
    url: str,
    api_key: str,
    no_service: object,
    receiver: Receiver,
    sender: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEMGEN_API_URL", url)
    monkeypatch.setenv("MEMGEN_API_KEY", api_key)
    assert "No webhook yet" in succeed("webhooks", "list").out
    created = succeed("webhooks", "create", "ops", "--url", receiver.url, "--event", "job.failed")
    assert created.out.startswith("whsec_")
    assert "not shown again" in created.err
    assert succeed("webhooks", "test", "ops").out == "ops has it: it answered 204.\n"
    Verifier(created.out.strip()).verify(receiver.received[0].body, receiver.received[0].headers)
    receiver.answer = status(500, b"no database")
    assert "ops has it not: answered 500: no database. It is tried again." in succeed("webhooks", "test", "ops").out
    listed = succeed("webhooks", "list").out
    assert "failing" in listed
    assert "webhook.test" in succeed("webhooks", "deliveries", "ops", "--state", "pending").out
    [delivered] = succeed("webhooks", "deliveries", "ops", "--state", "delivered", "--json").document["data"]
    assert succeed("webhooks", "redeliver", "ops", delivered["id"]).out == "1 delivery is sent again.\n"
    assert succeed("webhooks", "redeliver", "ops", "--given-up", "--json").document == {"redelivered": 0}
    assert succeed("webhooks", "rotate", "ops", "--overlap-hours", "2").out.startswith("whsec_")
    changed = succeed("webhooks", "change", "ops", "--disable", "--event", "all").out
    assert "sends all events" in changed
    assert "It is disabled: disabled by hand." in changed
    assert "is disabled" in fail("webhooks", "test", "ops")
    assert succeed("webhooks", "show", "ops", "--json").document["enabled"] is False
    assert succeed("webhooks", "delete", "ops").out == "Webhook ops is deleted.\n"
    assert "`memgen webhooks list` shows them" in fail("webhooks", "show", "ops")
