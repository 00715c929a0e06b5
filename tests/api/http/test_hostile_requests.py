"""Nothing that a client sends is a 5xx: every route of the application with hostile path, query, header and body.

The routes and what they take are read from the application itself, so that a new one is swept too.
"""

import copy
import hashlib
import http.client
import json
import re
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.http.anthropic_errors import is_anthropic_path
from api.http.openai_errors import is_openai_path
from api.http.otlp_errors import is_otlp_path
from registry.settings import Settings
from registry.wiring import Services
from tests.api.http.every_route import BODIES, OPERATIONS, PARAMETER, Stored, takes_json
from tests.api.live_api import serve

LONG = "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(160))
"""10 kB that do not compress: an index of PostgreSQL takes 2.7 kB of them, and ten thousand times the same letter."""
TEXTS = (
    *("", ".", "a\0b", "\U0001f600", "'; drop table tasks; --", "a/b", LONG[:6000], "-1", "2147483648"),
    *("9" * 5000, "1e999", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "bot@2147483648"),
    *("00000000-0000-0000-0000-000000000000", "f/////////8=", "bot@" + "9" * 5000),
)
"""In a path or a query."""

VALUES: tuple[Any, ...] = (
    *(None, -1, 2**31, 2**63, 10**300, 1e308, "", LONG, "../../etc/passwd", "0001-01-01T00:00:00+14:00"),
    *([], [[None]], [1] * 400, {}, {"x" * 3000: {"": [{}]}}, {"kind": "exact", "pattern": "(a+)+$", "steps": 2**63}),
)
"""In place of any value of a JSON body. What is no JSON at all has tests of its own."""

RAW = (b"", b"null", b"[]", b"0", b'"x"', b"{}", b'{"a":1}', b"\xff\xfe", b"\x1f\x8b\x08", b"{" * 5000)

HEADERS = ("Idempotency-Key", "Last-Event-ID", "X-Session-Id", "X-Request-ID", "Range", "Content-Type", "If-None-Match")


class Sweep:
    """One connection that must never break, and what was answered wrongly on it."""

    def __init__(self, url: str, key: str) -> None:
        self._connection = http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=60)
        self._connect()
        self._key = key
        self.sent = 0
        self.said = ""
        """The last answer."""
        self.wrong: list[str] = []
        self._cookie = httpx.post(f"{url}/ui/sign-in", data={"key": key}).headers["set-cookie"].partition(";")[0]

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> int:
        sent = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", **headers}
        sent |= {"Cookie": self._cookie} if path.startswith("/ui") else {}
        encoded = {name: value.encode("latin-1", "replace") for name, value in sent.items()}
        if self._connection.sock is None:
            self._connect()
        self._connection.request(method, path, body=body, headers=encoded)
        response = self._connection.getresponse()
        text = response.read()
        self.said = text.decode(errors="replace")
        self.sent += 1
        fault = self._fault(path, response, text)
        if fault is not None:
            shown = f"{method} {path[:120]} {body[:300] if body else ''!r} {headers if headers else ''}"
            self.wrong.append(f"{fault}: {response.status} on {shown[:400]}: {text[:200]!r}")
        return response.status

    def close(self) -> None:
        self._connection.close()

    def _connect(self) -> None:
        self._connection.connect()
        self._socket = self._connection.sock
        # Head and body go out one after the other: without this, each request waits for an acknowledgement.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _fault(self, path: str, response: http.client.HTTPResponse, text: bytes) -> str | None:
        if response.status >= 500:
            return "a fault of the server"
        if self._connection.sock is not self._socket:
            return "the connection closed"
        if response.status < 400:
            return None
        kind = response.headers["content-type"]
        if len(text) > 20_000:
            return "a long answer"
        if is_openai_path(urlsplit(path).path):
            return None if kind == "application/json" and "error" in json.loads(text) else "not as OpenAI"
        if is_anthropic_path(urlsplit(path).path):
            return None if kind == "application/json" and json.loads(text)["type"] == "error" else "not as Anthropic"
        if is_otlp_path(urlsplit(path).path):
            return (
                None if kind == "application/json" and set(json.loads(text)) == {"code", "message"} else "not as OTLP"
            )
        if path.startswith("/ui") and kind.startswith("text/"):
            return (
                None if b"<h1>" in text or b'class="problem"' in text or path.startswith("/ui/static/") else "no page"
            )
        if path.startswith("/ui/playground/") and kind == "application/json":
            return None if json.loads(text)["detail"] else "no detail"
        return None if kind == "application/problem+json" and json.loads(text)["detail"] else "no problem"


@pytest.fixture
def app_settings(settings: Settings, tiny_base: Path) -> Settings:
    return settings.model_copy(update={"base_model": str(tiny_base), "max_import_bytes": 10**7})


@pytest.fixture
def url(app_settings: Settings, api_key: str) -> Iterator[str]:
    with serve(app_settings, serve_model=True) as url:
        for _ in range(1000):
            if httpx.get(f"{url}/readyz").status_code == 200:
                break
        yield url


@pytest.fixture
def stored(services: Services, project_id: uuid.UUID) -> Stored:
    return Stored(services, project_id)


@pytest.fixture
def sweep(url: str, api_key: str, stored: Stored) -> Iterator[Sweep]:
    with closing(Sweep(url, api_key)) as sweep:
        assert sweep.ask("POST", "/v1/schedules", as_json(schedule())) == 201
        yield sweep
        assert sweep.ask("GET", "/v1/tasks") == 200, "an ordinary request on the same connection"
        assert not sweep.wrong, f"{len(sweep.wrong)} of {sweep.sent}:\n" + "\n".join(sweep.wrong[:60])


def schedule() -> dict[str, Any]:
    return {"name": "s", "adapter": "bot", "task": "t", "new_trajectories": 5}


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_every_route_is_swept() -> None:
    with_body = {f"{method} {path}" for method, path, operation in OPERATIONS if takes_json(operation)}
    assert with_body == set(BODIES), "each route with a JSON body needs a whole one here"
    assert {"/docs", "/openapi.json", "/healthz"} <= {path for _, path, _ in OPERATIONS}
    assert len(OPERATIONS) > 60


def test_hostile_paths_and_queries(sweep: Sweep, stored: Stored) -> None:
    for method, path, operation in OPERATIONS:
        body = as_json(BODIES[f"{method} {path}"]) if takes_json(operation) else None
        for name in re.findall(PARAMETER, path):
            for text in TEXTS:
                sweep.ask(method, stored.path(path, **{name: text}), body)
        named = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
        for name in (*named, "unknown"):
            for text in TEXTS if name != "unknown" else TEXTS[2:3]:
                sweep.ask(method, f"{stored.path(path)}?{urlencode({name: text})}", body)
        for query in ("%zz=%ff&limit=%00&==&&", "a=%ED%A0%80&limit=1&limit=x&cursor=" + "A" * 9000):
            sweep.ask(method, f"{stored.path(path)}?{query}", body)


def test_hostile_headers(sweep: Sweep, stored: Stored) -> None:
    texts = ("", "abc", "-1", "9" * 30, "9" * 5000, "ä\xa0ÿ", LONG, "bytes=9-1,-")
    for method, path, operation in OPERATIONS:
        body = as_json(BODIES[f"{method} {path}"]) if takes_json(operation) else None
        read = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "header"]
        for header in HEADERS if path in ("/v1/tasks", "/docs") else read:
            for text in texts:
                sweep.ask(method, stored.path(path), body, **{header: text})
    for text in (*texts, "Bearer", "Bearer  ", "Bearer \xff", "Basic x", "bearer " + "x" * 10_000):
        assert sweep.ask("GET", "/v1/tasks", Authorization=text) == 401


def test_hostile_bodies(sweep: Sweep, stored: Stored) -> None:
    for method, path, operation in OPERATIONS:
        target = stored.path(path)
        for raw in RAW if "requestBody" in operation else RAW[:4]:
            sweep.ask(method, target, raw)
        if not takes_json(operation):
            continue
        whole = BODIES[f"{method} {path}"]
        for place in _places(whole):
            for value in VALUES:
                sweep.ask(method, target, as_json(_with(whole, place, value)))
            sweep.ask(method, target, as_json(_without(whole, place)))
        sweep.ask(method, target, as_json(whole | {"x" * 20_000: 1}))
        sweep.ask(method, target, as_json(whole | {f"x{n}": n for n in range(5000)}))


def test_of_many_faults_few_are_told(sweep: Sweep, stored: Stored) -> None:
    """Each that is found costs a kilobyte and microseconds in which nobody is answered."""
    many: tuple[Any, ...] = ([0] * 1000, {f"x{n}": n for n in range(1000)})
    for method, path, operation in OPERATIONS:
        if not takes_json(operation):
            continue
        whole = BODIES[f"{method} {path}"]
        for value in many:
            bodies = [_with(whole, place, value) for place in _places(whole)]
            for body in bodies if isinstance(value, list) else [*bodies, whole | value]:
                sweep.ask(method, stored.path(path), as_json(body))
                assert re.search(r"; and \d+ more", sweep.said) is None, (path, str(body)[:200], sweep.said[-200:])


def test_methods_and_paths_that_there_are_not(sweep: Sweep, stored: Stored) -> None:
    for path in {path for _, path, _ in OPERATIONS}:
        for method in ("DELETE", "PATCH", "PUT", "POST", "TRACE", "BREW", "PROPFIND"):
            if all((method, path) != each[:2] for each in OPERATIONS):
                assert sweep.ask(method, stored.path(path)) == 405
    for path in (
        "/",
        "/v1",
        "/v1/",
        "//",
        "/v1/adapters//",
        "/v1/nowhere",
        "/%00",
        "/v1/jobs/%2e%2e",
        "/" + "a/" * 3000,
    ):
        for method in ("GET", "POST"):
            assert sweep.ask(method, path) in (307, 404, 405, 422)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
LISTS = st.lists(SCALARS, max_size=3)
JSON_VALUES = st.one_of(SCALARS, LISTS, st.dictionaries(st.text(), st.one_of(SCALARS, LISTS), max_size=3))


@hypothesis_settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)
@given(data=st.data())
def test_any_json_in_any_place(sweep: Sweep, stored: Stored, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from(sorted(BODIES)))
    method, _, path = route.partition(" ")
    whole = BODIES[route]
    place = data.draw(st.sampled_from(list(_places(whole))))
    sweep.ask(method, stored.path(path), as_json(_with(whole, place, data.draw(JSON_VALUES))))
    assert sweep.wrong == []


def _places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if place:
        yield place
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in parts:
        yield from _places(child, (*place, key))


def _with(whole: Any, place: Sequence[str | int], value: Any) -> Any:
    changed = copy.deepcopy(whole)
    holder = changed
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    return changed


def _without(whole: Any, place: Sequence[str | int]) -> Any:
    changed = copy.deepcopy(whole)
    holder = changed
    for key in place[:-1]:
        holder = holder[key]
    del holder[place[-1]]
    return changed
