"""A server that is away is a 503 with Retry-After on every route, never a 500; when it is back, so is the service."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy import exc

from api.http.database_errors import domain_error
from registry import jobs
from registry.database import transaction
from registry.errors import DatabaseUnavailable, Invalid, StoreUnavailable
from registry.job_requests import TrainWeaver
from registry.object_store import ObjectStore
from registry.settings import Settings
from registry.wiring import Services
from tests.api.http.every_route import BODIES, OPERATIONS, Stored
from tests.api.live_api import serve
from tests.api.stored import make_adapter
from tests.relay import Relay


def fatal(sqlstate: str) -> bytes:
    """PostgreSQL's refusal of a connection, as it goes over the wire."""
    fields = b"".join(
        kind + text.encode() + b"\0"
        for kind, text in ((b"S", "FATAL"), (b"V", "FATAL"), (b"C", sqlstate), (b"M", "no"))
    )
    return b"E" + (len(fields) + 5).to_bytes(4, "big") + fields + b"\0"


@pytest.fixture
def postgres(settings: Settings) -> Iterator[Relay]:
    assert settings.database_url is not None
    url = sa.make_url(settings.database_url.get_secret_value())
    relay = Relay(url.host or "127.0.0.1", url.port or 5432)
    yield relay
    relay.close()


@pytest.fixture
def store(settings: Settings) -> Iterator[Relay]:
    assert settings.s3_url is not None
    url = urlsplit(settings.s3_url.get_secret_value())
    relay = Relay(url.hostname or "127.0.0.1", url.port or 80)
    yield relay
    relay.close()


@pytest.fixture
def api(
    settings: Settings, services: Services, api_key: str, postgres: Relay, store: Relay, tiny_base: Path
) -> Iterator[httpx.Client]:
    """An API that reaches PostgreSQL and S3 through relays."""
    assert settings.database_url is not None
    assert settings.s3_url is not None
    database = sa.make_url(settings.database_url.get_secret_value()).set(host="127.0.0.1", port=postgres.port)
    s3 = urlsplit(settings.s3_url.get_secret_value())
    credentials = s3.netloc.rpartition("@")[0]
    relayed = settings.model_copy(
        update={
            "database_url": SecretStr(database.render_as_string(hide_password=False)),
            "s3_url": SecretStr(urlunsplit(s3._replace(netloc=f"{credentials}@127.0.0.1:{store.port}"))),
            "base_model": str(tiny_base),
        }
    )
    headers = {"Authorization": f"Bearer {api_key}"}
    with serve(relayed) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        yield client


def ask(api: httpx.Client, method: str, path: str, template: str) -> httpx.Response:
    return api.request(method, path, json=BODIES.get(f"{method} {template}"))


def assert_unavailable(answer: httpx.Response, code: str) -> None:
    body = answer.json()
    if answer.request.url.path.startswith("/v1/messages"):  # Anthropic's status and shape
        status, found = 529, body["error"]["details"]["error_code"]
    elif answer.request.url.path == "/v1/traces":  # OTLP's shape
        status, found = 503, body["message"].partition(":")[0]
    else:
        status, found = 503, body["error"]["code"] if "error" in body else body["type"].rpartition(":")[2]
    assert answer.status_code == status, (answer.request.url, answer.text)
    assert int(answer.headers["retry-after"]) > 0
    assert found == code


KEYLESS = {path for method, path, operation in OPERATIONS if "security" not in operation}
DASHBOARD = "/ui"
"""Its pages are for people; whoever asks here is not signed in, and is led to the page for that."""


def test_every_route_says_that_the_database_is_away(
    api: httpx.Client, postgres: Relay, services: Services, project_id: uuid.UUID
) -> None:
    stored = Stored(services, project_id)
    assert api.get("/v1/tasks").status_code == 200
    postgres.away()
    for method, path, _ in OPERATIONS:
        answer = ask(api, method, stored.path(path), path)
        if path not in KEYLESS:
            assert_unavailable(answer, "database_unavailable")
        elif path.startswith(DASHBOARD):
            assert answer.status_code in (200, 303, 401, 404, 503), path
        else:
            assert answer.status_code == (503 if path == "/readyz" else 200)
    assert api.get("/readyz").headers["retry-after"]
    postgres.back()
    assert api.get("/v1/tasks").status_code == 200


@pytest.mark.parametrize("sqlstate", ["53300", "57P03", "57P01"], ids=["too many", "starting", "shut down"])
def test_a_database_that_takes_no_connections(api: httpx.Client, postgres: Relay, sqlstate: str) -> None:
    postgres.greet(fatal(sqlstate))
    assert_unavailable(api.get("/v1/tasks"), "database_unavailable")
    postgres.back()
    assert api.get("/v1/tasks").status_code == 200


def test_connections_that_the_server_ended_are_made_anew(api: httpx.Client, services: Services) -> None:
    """As after a restart of the server: the pool's connections are all dead, and no request notices."""
    end = sa.text(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
        "where pid != pg_backend_pid() and datname = current_database()"
    )
    for _ in range(3):
        assert api.get("/v1/tasks").status_code == 200
        with transaction(services.sessions) as session:
            session.execute(end)


def test_a_connection_that_breaks_anywhere_in_a_request_is_no_bug(
    api: httpx.Client, postgres: Relay, services: Services, project_id: uuid.UUID
) -> None:
    """Broken at the first statement, at the second, and so on: in the look-up of the key, in reads, at commits."""
    stored = Stored(services, project_id)
    broken = 0
    for method, path, _ in OPERATIONS:
        if path in KEYLESS or "stream" in path or "import" in path or method not in ("GET", "POST"):
            continue
        for pieces in range(0, 12, 2):
            api.get("/v1/tasks")
            postgres.drop_after(pieces)
            answer = ask(api, method, stored.path(path), path)
            postgres.back()
            assert answer.status_code != 500, (method, path, pieces, answer.text)
            if answer.status_code == 503 and "database_unavailable" in answer.text:
                assert_unavailable(answer, "database_unavailable")
                broken += 1
    assert broken > 100, "the connections break inside the requests"
    assert api.get("/v1/tasks").status_code == 200


def test_a_stream_of_events_outlives_the_database(
    api: httpx.Client, postgres: Relay, services: Services, project_id: uuid.UUID
) -> None:
    with transaction(services.sessions) as session:
        adapter = make_adapter(session, project_id)
        job = jobs.create_job(session, project_id, TrainWeaver.from_json({"task": "t"}), adapter)
    with api.stream("GET", f"/v1/jobs/{job.id}/stream") as answer:
        lines = answer.iter_lines()
        assert any('"state":"queued"' in line for line in lines)
        postgres.away()
        assert next(line for line in lines if line.startswith(":")).startswith(": the database does not answer")
        postgres.back()
        with transaction(services.sessions) as session:
            jobs.request_cancel(session, project_id, job.id)
        assert any('"state":"cancelled"' in line for line in lines)
        assert not any(lines), "the stream has ended"


def test_routes_that_read_the_store_say_that_it_is_away(
    api: httpx.Client, store: Relay, services: Services, project_id: uuid.UUID
) -> None:
    Stored(services, project_id)
    asked = ("/v1/adapters/bot/versions/1/export",)
    store.away()
    for path in asked:
        assert_unavailable(api.get(path), "store_unavailable")
    assert_unavailable(api.post("/v1/garbage", json={"dry_run": True}), "store_unavailable")
    assert "StoreUnavailable" in api.get("/readyz").json()["checks"]["store"]
    assert api.get("/v1/tasks").status_code == 200
    store.back()
    assert api.post("/v1/garbage", json={"dry_run": True}).status_code == 200


def test_what_the_stores_client_raises_is_an_unavailable_store(store: Relay, settings: Settings) -> None:
    """Whatever stands at its address: a proxy's page, half an answer, silence that is cut."""
    opened = ObjectStore(f"http://a:b@127.0.0.1:{store.port}", "memgen", "us-east-1")
    answers = (
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<p/>",
        b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n<half",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<no>",
        b"nonsense\r\n\r\n",
        b"",
    )
    for answer in answers:
        store.greet(answer)
        for use in (
            lambda: opened.get("k"),
            lambda: opened.put("k", b"x"),
            lambda: list(opened.list("k")),
            lambda: opened.stat("k"),
        ):
            try:
                use()
            except StoreUnavailable:
                continue
            except Exception as error:
                raise AssertionError(f"{answer!r}: {error!r}") from error
    opened.close()


def test_which_of_the_drivers_errors_are_whose() -> None:
    class Original(Exception):
        sqlstate: str | None = None

    read_only, too_large = Original(), Original()
    read_only.sqlstate, too_large.sqlstate = "25006", "54000"
    away = (
        exc.OperationalError("s", {}, Original()),
        exc.InterfaceError("s", {}, Original()),
        exc.TimeoutError(),
        exc.InternalError("s", {}, read_only),
        exc.DBAPIError("s", {}, Original(), connection_invalidated=True),
    )
    assert all(isinstance(domain_error(error), DatabaseUnavailable) for error in away)
    refused = exc.DataError("s", {}, Original()), exc.OperationalError("s", {}, too_large)
    assert all(isinstance(domain_error(error), Invalid) for error in refused)
    bugs = (
        exc.ProgrammingError("s", {}, Original()),
        exc.IntegrityError("s", {}, Original()),
        exc.InvalidRequestError(),
    )
    assert [domain_error(error) for error in bugs] == [None] * 3
