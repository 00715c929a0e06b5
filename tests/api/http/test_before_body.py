"""Who sends, whether it may, and how much: answered from a request's head, before its body is read."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from api.app import create_app
from api.dashboard.urls import ROUTES as DASHBOARD
from api.http.anthropic_errors import is_anthropic_path
from api.http.before_body import LIMITS
from api.http.openai_errors import is_openai_path
from registry.database import transaction
from registry.settings import Settings
from registry.wiring import Services
from tests.api.http.wire import Wire
from tests.api.live_api import serve

HUGE = "Content-Length: 300000000"
CHUNKED = "Transfer-Encoding: chunked"
JSON = "Content-Type: application/json"
BODIES = (
    "POST /v1/chat/completions",
    "POST /v1/tasks",
    "POST /v1/trajectories",
    "POST /v1/trajectories/import",
    "POST /v1/adapters/bot/versions/import",
    "PATCH /v1/adapters/bot",
)


@pytest.fixture
def url(settings: Settings, api_key: str) -> Iterator[str]:
    with serve(settings.model_copy(update={"max_json_bytes": 1000, "max_chat_bytes": 2000})) as url:
        yield url


@pytest.fixture
def api(url: str, api_key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}) as client:
        yield client


def make_key(api: httpx.Client, *scopes: str) -> dict[str, Any]:
    made: dict[str, Any] = api.post("/v1/keys", json={"name": "k", "scopes": scopes}).json()
    return made


@pytest.mark.parametrize("head", BODIES)
@pytest.mark.parametrize("framing", [HUGE, CHUNKED])
def test_a_caller_who_may_not_is_answered_from_the_head_alone(
    url: str, api: httpx.Client, head: str, framing: str
) -> None:
    """No byte of the body is ever sent: an answer that waits for one would never come."""
    revoked, reader = make_key(api, "admin"), make_key(api, "read")
    api.delete(f"/v1/keys/{revoked['id']}")
    for key in (None, "mg_made_up", "", "ä", revoked["key"]):
        with Wire(url, key) as wire:
            wire.send(head, JSON, framing)
            answer = wire.answer()
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), key
            assert answer.headers["connection"] == "close"
    if "chat" not in head:
        with Wire(url, reader["key"]) as wire:
            wire.send(head, JSON, framing)
            assert wire.answer().status == 403


def test_a_body_that_is_refused_is_never_asked_for(url: str, api_key: str) -> None:
    expect = "Expect: 100-continue"
    for key, declared, status in ((None, 10, 401), ("mg_made_up", 10, 401), (api_key, 2001, 413)):
        with Wire(url, key) as wire:
            wire.send("POST /v1/chat/completions", JSON, expect, f"Content-Length: {declared}")
            assert wire.first_line().startswith(f"HTTP/1.1 {status}".encode())
    with Wire(url, api_key) as wire:
        wire.send("POST /v1/tasks", JSON, expect, "Content-Length: 12")
        assert wire.first_line().startswith(b"HTTP/1.1 100")
        assert wire.first_line() == b"\r\n"
        wire.more(b'{"name":"t"}')
        assert wire.answer().status == 201


@pytest.mark.parametrize(
    ("head", "setting", "limit"),
    [
        ("POST /v1/tasks", "MEMGEN_MAX_JSON_BYTES", 1000),
        ("POST /v1/chat/completions", "MEMGEN_MAX_CHAT_BYTES", 2000),
        ("POST /v1/trajectories", "MEMGEN_MAX_TRAJECTORY_BYTES", 4_000_000),
        ("POST /v1/adapters/bot/versions/import", "MEMGEN_MAX_ARCHIVE_BYTES", 2_000_000_000),
        ("POST /v1/trajectories/import", "MEMGEN_MAX_IMPORT_BYTES", 100_000_000_000),
    ],
)
def test_a_body_that_declares_too_much_is_refused_unread(
    url: str, api_key: str, head: str, setting: str, limit: int
) -> None:
    with Wire(url, api_key) as wire:
        wire.send(head, JSON, f"Content-Length: {limit + 1}")
        answer = wire.answer()
    said = answer.json()["error"]["message"] if "chat" in head else answer.json()["detail"]
    assert answer.status == 413
    assert setting in said
    assert str(limit) in said


def test_a_body_of_unknown_length_is_counted(url: str, api_key: str) -> None:
    for head, limit in (("POST /v1/tasks", 1000), ("POST /v1/chat/completions", 2000)):
        for length, too_long in ((limit, False), (limit + 1, True)):
            with Wire(url, api_key) as wire:
                wire.send(head, JSON, CHUNKED)
                wire.more(b"1\r\n{\r\n")
                wire.more(f"{length - 1:x}\r\n".encode() + b" " * (length - 1) + b"\r\n")
                if not too_long:
                    wire.more(b"0\r\n\r\n")
                assert (wire.answer().status == 413) == too_long


def test_limits_stand_at_paths_that_there_are() -> None:
    settings = Settings(database_url=None)
    app = create_app(settings, serve_model=False)
    assert set(LIMITS) <= {*app.openapi()["paths"], *(route.path for route in DASHBOARD)}
    assert all(getattr(settings, name) > settings.max_json_bytes for name in LIMITS.values())


def test_an_early_answer_is_read_by_a_client_that_sends_all_before(url: str, api: httpx.Client) -> None:
    """The connection is closed behind the answer, not on it."""
    with Wire(url, "mg_made_up") as wire:
        wire.send("POST /v1/chat/completions", JSON, "Content-Length: 20000000")
        for _ in range(20):
            wire.more(b"x" * 1_000_000)
        assert wire.answer().status == 401
        assert wire.is_closed()
    refused = api.post("/v1/tasks", content=b"x" * 3_000_000, headers={"Content-Type": "application/json"})
    assert refused.status_code == 413


def test_a_small_refused_body_costs_no_connection(url: str, api_key: str) -> None:
    with Wire(url) as wire:
        for _ in range(2):
            wire.send("POST /v1/tasks", JSON, "Content-Length: 2", body=b"{}")
            assert wire.answer().status == 401
    with Wire(url, api_key) as wire:
        for body in (b"{}", b"[" * 900, b"\xff", b'{"name": "a\\u0000b"}'):
            wire.send("POST /v1/tasks", JSON, f"Content-Length: {len(body)}", body=body)
            assert wire.answer().status == 422
        wire.send("GET /v1/tasks")
        assert wire.answer().status == 200


def test_lengths_that_are_none(settings: Settings, services: Services, api_key: str) -> None:
    """A server in front may pass on what ours refuses, so the application looks too."""
    app = create_app(settings, serve_model=False)
    app.state.services = services

    def status(*lengths: str) -> int:
        headers = [(b"content-length", length.encode()) for length in lengths]
        headers += [(b"authorization", f"Bearer {api_key}".encode()), (b"content-type", b"application/json")]
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            **{"type": "http", "method": "POST", "path": "/v1/tasks", "query_string": b"", "headers": headers},
            **{"raw_path": b"/v1/tasks", "root_path": "", "scheme": "http", "server": ("x", 80), "app": app},
        }
        asyncio.run(app(scope, receive, send))
        return int(sent[0]["status"])

    for wrong in ("-1", "+5", "1_0", "x", "", " ", "1.0", "٣", "9" * 5000):
        assert status(wrong) == 400, wrong
    assert status("3", "4") == 400
    assert status("0") == 422, "an empty body, which the route refuses"
    assert status("0", "0") == 422


def test_who_asks_is_looked_up_beside_the_event_loop(url: str, api: httpx.Client, services: Services) -> None:
    """However many keys are being looked up, and however slowly: health answers."""
    done: list[int] = []
    with services.engine.connect() as holder:
        holder.execute(sa.text("lock table api_keys in access exclusive mode"))

        def ask() -> None:
            done.append(
                httpx.get(f"{url}/v1/tasks", headers={"Authorization": "Bearer mg_made_up"}, timeout=60).status_code
            )

        asking = [threading.Thread(target=ask) for _ in range(50)]
        for thread in asking:
            thread.start()
        _wait_for_waiting_lookups(services)
        for _ in range(3):
            assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        assert done == []
    for thread in asking:
        thread.join(timeout=60)
    assert done == [401] * 50


def _wait_for_waiting_lookups(services: Services) -> None:
    query = sa.text("select count(*) from pg_locks where not granted")
    deadline = threading.Event()
    for _ in range(1000):
        with transaction(services.sessions) as session:
            if (session.scalar(query) or 0) >= 8:
                return
        deadline.wait(0.01)
    raise AssertionError("nobody waits for the lock")


WRONG_JSON = {
    "too_deep": b"[" * 100_000,
    "too_deep ": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "too_deep  ": b'{"name":' + b"[" * 200 + b"]" * 200 + b"}",
    "invalid_json": b'{"name": ' + b"9" * 5000 + b"}",
    "invalid_json ": b"{",
    "invalid_json  ": b'{"name": "t",}',
    "not_finite": b'{"name": NaN}',
    "not_finite ": b'{"name": -Infinity}',
    "not_finite  ": b'{"name": 1e999}',
    "lone_surrogate": b'{"name": "\\ud83d"}',
    "lone_surrogate ": b'{"\\udc00": 1}',
    "nul_character": b'{"name": "a\\u0000"}',
    "duplicate_key": b'{"name": "a", "name": "b"}',
    "invalid_utf8": b'{"name": "\xff"}',
    "invalid_utf8 utf-16": '{"name": "t"}'.encode("utf-16"),
}
JSON_CODES = {"invalid_json", "duplicate_key", "invalid_utf8"}


def test_json_that_no_route_could_use_is_refused_on_every_route(
    settings: Settings, api_key: str, tiny_base: Path
) -> None:
    settings = settings.model_copy(update={"base_model": str(tiny_base)})
    app = create_app(settings, serve_model=False)
    taking = [
        (method.upper(), path)
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
        if "application/json" in operation.get("requestBody", {}).get("content", ())
        # These refuse lines and spans one by one, and the second in OTLP's words.
        and path not in ("/v1/trajectories/import", "/v1/traces")
    ]
    assert len(taking) > 15
    with serve(settings) as url, httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}) as api:
        for method, path in taking:
            chat, anthropic = is_openai_path(path) or is_anthropic_path(path), is_anthropic_path(path)
            path = path.replace("{number}", "1").replace("{name}", "n").replace("{alias}", "a")
            for code, body in WRONG_JSON.items():
                if chat and code == "nul_character":
                    continue  # what a chat says is stored nowhere
                answer = api.request(method, path, content=body, headers={"Content-Type": "application/json"})
                assert answer.status_code == (400 if chat else 422), (path, answer.text)
                if path == "/v1/trajectories" and code.split()[0] not in JSON_CODES:
                    continue  # an item's values are checked when its format is known
                if anthropic:
                    found = answer.json()["error"]["details"]["error_code"]
                else:
                    found = answer.json()["error"]["code"] if chat else answer.json()["type"].rpartition(":")[2]
                assert found == code.split()[0], (path, answer.text)


def test_lines_of_an_import_are_refused_one_by_one(settings: Settings, api_key: str, tiny_base: Path) -> None:
    settings = settings.model_copy(update={"base_model": str(tiny_base)})
    with serve(settings) as url, httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}) as api:
        _import_wrong_lines(api)


def _import_wrong_lines(api: httpx.Client) -> None:
    api.post("/v1/tasks", json={"name": "t"})
    good = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    head = json.dumps(good).encode().removesuffix(b"}") + b', "metadata": '
    wrong = {code: head + body + b"}" for code, body in WRONG_JSON.items() if "utf-16" not in code}
    body = b"\n".join([*wrong.values(), json.dumps(good).encode()])
    report = api.post("/v1/trajectories/import?task=t", content=body, timeout=60).json()
    assert (report["lines_read"], report["accepted"] + report["duplicate"]) == (len(wrong) + 1, 1)
    assert [line["code"] for line in report["lines"]] == [code.split()[0] for code in wrong]


def test_only_plain_json_is_json(api: httpx.Client) -> None:
    body = b'{"name": "t"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"):
        refused = api.post("/v1/tasks", content=body, headers={"Content-Type": kind})
        assert (refused.status_code, refused.json()["type"]) == (415, "urn:memgen:problem:http_415"), kind
        assert kind.partition(";")[0] in refused.json()["detail"]
    missing = api.post("/v1/tasks", content=body)
    assert (missing.status_code, "it is missing" in missing.text) == (415, True)
    for coding in ("gzip", "br"):
        packed = {"Content-Type": "application/json", "Content-Encoding": coding}
        assert api.post("/v1/tasks", content=body, headers=packed).status_code == 415
    charset = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert api.post("/v1/tasks", content=b"\xef\xbb\xbf" + body, headers=charset).status_code == 201
