"""HEAD, OPTIONS, `Allow` and CORS on every route."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from registry import jobs
from registry.database import transaction
from registry.job_requests import TrainWeaver
from registry.settings import Settings
from registry.wiring import Services
from tests.api.http.every_route import OPERATIONS, Stored
from tests.api.live_api import serve
from tests.api.stored import make_adapter

PAGE = "https://app.example.com"
ASKS = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-a"}


@pytest.fixture
def app_settings(settings: Settings, tiny_base: Path) -> Settings:
    return settings.model_copy(update={"base_model": str(tiny_base)})


@pytest.fixture
def api(app_settings: Settings, api_key: str) -> Iterator[httpx.Client]:
    with (
        serve(app_settings) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=30) as client,
    ):
        yield client


@pytest.fixture
def browser(app_settings: Settings) -> Iterator[httpx.Client]:
    """A web page's calls, without a key."""
    allowing = app_settings.model_copy(update={"cors_origins": f"{PAGE}, http://localhost:3000"})
    with serve(allowing) as url, httpx.Client(base_url=url, headers={"Origin": PAGE}) as client:
        yield client


def test_head_answers_as_get_does(api: httpx.Client, services: Services, project_id: uuid.UUID) -> None:
    stored = Stored(services, project_id)
    for method, path, _ in OPERATIONS:
        if method != "GET" or path.endswith("/export"):  # an export is written for GET alone
            continue
        got = api.get(stored.path(path))
        head = api.head(stored.path(path))
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers.get("content-type") == got.headers.get("content-type")
        if "stream" not in path and not path.endswith("/live"):
            assert head.headers["content-length"] == got.headers["content-length"], path


def test_head_of_a_stream_starts_none(api: httpx.Client, services: Services, project_id: uuid.UUID) -> None:
    """The job lives, so a stream would not end; the connection goes on to the next request."""
    with transaction(services.sessions) as session:
        adapter = make_adapter(session, project_id)
        job = jobs.create_job(session, project_id, TrainWeaver.from_json({"task": "t"}), adapter)
    for _ in range(2):
        head = api.head(f"/v1/jobs/{job.id}/stream")
        assert (head.status_code, head.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    assert api.head(f"/v1/jobs/{uuid.uuid4()}/stream").status_code == 404


def test_head_of_an_export_exports_nothing(api: httpx.Client, services: Services, project_id: uuid.UUID) -> None:
    Stored(services, project_id)
    head = api.head("/v1/adapters/bot/versions/1/export")
    assert (head.status_code, head.headers["content-type"]) == (200, "application/x-tar")
    assert 'filename="bot-1.tar"' in head.headers["content-disposition"]
    kinds = [change["kind"] for change in api.get("/v1/adapters/bot/versions/1/history").json()["data"]]
    assert "exported" not in kinds
    assert api.head("/v1/adapters/bot/versions/9/export").status_code == 404


def test_each_path_tells_its_methods(api: httpx.Client, services: Services, project_id: uuid.UUID) -> None:
    stored = Stored(services, project_id)
    for path in {path for _, path, _ in OPERATIONS}:
        methods = {method for method, other, _ in OPERATIONS if other == path}
        # `/{number}` and `/import` share a path: what either takes is told.
        expected = {"OPTIONS", *methods, *({"HEAD"} if "GET" in methods else ())}
        for answer, status in (
            (api.request("PROPFIND", stored.path(path)), 405),
            (httpx.options(f"{api.base_url}{stored.path(path)}"), 204),
        ):
            assert answer.status_code == status, path
            assert expected <= set(answer.headers["allow"].split(", ")), path
    assert api.request("DELETE", "/v1/keys").headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert api.request("OPTIONS", "/v1/nowhere").status_code == 404
    problem = api.request("DELETE", "/v1/keys")
    assert problem.headers["content-type"] == "application/problem+json"
    assert "GET, HEAD, OPTIONS, POST" in problem.json()["detail"]


def test_pages_of_other_origins_may_not_call_by_default(api: httpx.Client) -> None:
    for answer in (api.options("/v1/tasks", headers=ASKS), api.get("/v1/tasks", headers={"Origin": PAGE})):
        assert answer.is_success
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_preflight_needs_no_key(browser: httpx.Client) -> None:
    for _, path, _ in OPERATIONS:
        answer = browser.options(path, headers=ASKS)
        assert answer.status_code == 200, path
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["access-control-allow-headers"] == "authorization,x-a"
        assert {"GET", "POST", "PATCH", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    refused = browser.options("/v1/tasks", headers={**ASKS, "Origin": "https://evil.example.com"})
    assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json")
    assert "access-control-allow-origin" not in refused.headers
    assert "MEMGEN_CORS_ORIGINS" in refused.json()["detail"]


def test_pages_can_read_errors_too(browser: httpx.Client, api_key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    key = {"Authorization": f"Bearer {api_key}"}
    monkeypatch.setattr("api.endpoints.tasks.list_tasks", broken)
    answers = [
        browser.get("/healthz"),
        browser.get("/v1/tasks"),
        browser.get("/v1/tasks", headers=key),
        browser.get("/v1/nowhere", headers=key),
        browser.delete("/v1/tasks", headers=key),
        browser.post("/v1/tasks", headers=key, json={"name": "x" * 2_000_000}),
        browser.post("/v1/chat/completions", headers=key, json={}),
        browser.get("/readyz"),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 500, 404, 405, 413, 400, 503]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "Origin" in answer.headers["vary"]
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"Retry-After", "X-Request-ID", "X-Memgen-Version", "Allow"} <= set(exposed)
    foreign = browser.get("/healthz", headers={"Origin": "https://evil.example.com"})
    assert "access-control-allow-origin" not in foreign.headers


def test_origins_are_checked_when_settings_are_read() -> None:
    assert Settings(cors_origins=" https://a.b , http://localhost:3000,").allowed_origins == [
        "https://a.b",
        "http://localhost:3000",
    ]
    assert (Settings(cors_origins="*").allowed_origins, Settings().allowed_origins) == (["*"], [])
    for wrong in ("app.example.com", "https://a.b/", "https://a.b/path", "https://a.b https://c.d", "null"):
        with pytest.raises(ValidationError, match="are no origins"):
            Settings(cors_origins=wrong)
