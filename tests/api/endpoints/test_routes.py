"""Routes and feedback over HTTP: shapes, scopes, idempotency, pages, errors, isolation. Serving: tests/e2e."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from registry.adapters import get_adapter
from registry.database import transaction
from registry.keys import create_key, ensure_bootstrap_key
from registry.models import Project
from registry.serving.aliases import promote
from registry.serving.exposures import record_exposure
from registry.serving.resolution import ServingRequest, resolve
from registry.settings import Settings
from registry.versions.records import get_version
from registry.wiring import Services
from tests.api.live_api import serve
from tests.api.stored import make_adapter, make_gate, make_task, make_version

ROUTES = "/v1/adapters/bot/routes"
EVEN: dict[str, Any] = {"kind": "ab", "arms": [{"version": 1, "weight": 0.5}, {"version": 2, "weight": 0.5}]}


@pytest.fixture
def bot(services: Services, project_id: uuid.UUID) -> None:
    """`bot` with versions 1 and 2 that passed and 3 that was rejected; 1 is the champion."""
    with transaction(services.sessions) as session:
        adapter, task = make_adapter(session, project_id), make_task(session, project_id, "t")
        for after in (0.5, 0.75, 0.1):
            make_gate(session, make_version(session, adapter, task), task, before=0.25, after=after)
        promote(session, adapter, "champion", get_version(session, adapter, 1), actor="test", reason="")


@pytest.fixture
def http(settings: Settings, api_key: str, bot: None) -> Iterator[httpx.Client]:
    with serve(settings) as url, httpx.Client(base_url=url, headers=_auth(api_key), timeout=30) as client:
        yield client


def _auth(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _answer(services: Services, project_id: uuid.UUID, session_id: str | None = None) -> tuple[str, str]:
    """Completion id and label of an answer as the chat endpoint would have given it."""
    request = ServingRequest(f"chatcmpl-{uuid.uuid4().hex}", session_id)
    with transaction(services.sessions) as session:
        served = resolve(session, project_id, "bot", request)
        record_exposure(session, project_id, request.completion_id, served, session_id)
    return request.completion_id, served.label


def test_a_route_from_start_to_end(http: httpx.Client, services: Services, project_id: uuid.UUID) -> None:
    started = http.post(ROUTES, json={**EVEN, "reason": "why not"})
    assert started.status_code == 201
    route = started.json()
    assert (route["adapter"], route["number"], route["kind"], route["state"]) == ("bot", 1, "ab", "live")
    assert route["arms"] == EVEN["arms"]
    labels = set()
    for number in range(12):
        completion, label = _answer(services, project_id, f"s{number}")
        given = http.post("/v1/feedback", json={"completion_id": completion, "reward": 1}).json()
        assert (given["model"], given["session_id"], given["route"]) == (label, f"s{number}", 1)
        assert (given["counted"], given["stopped"], given["promoted"]) == (True, False, False)
        assert given["source"] == "user"
        labels.add(label)
    assert labels == {"bot@1", "bot@2"}
    found = http.get(f"{ROUTES}/1/results").json()
    control, other = found["arms"]
    assert control["sessions"] + other["sessions"] == control["exposures"] + other["exposures"] == 12
    assert (control["mean"], other["mean"], control["difference"]) == (1.0, 1.0, None)
    assert 0 < control["interval"]["low"] < control["interval"]["high"] == 1.0
    assert other["difference"]["verdict"] == "not yet"
    assert other["difference"]["interval"]["low"] < 0 < other["difference"]["interval"]["high"]
    assert other["sessions_needed"] > 100
    ended = http.patch(f"{ROUTES}/1", json={"state": "ended", "reason": "enough"}).json()
    assert (ended["state"], [change["kind"] for change in ended["history"]]) == ("ended", ["started", "ended"])
    assert [(c["actor"], c["reason"]) for c in ended["history"]] == [
        ("key bootstrap", "why not"),
        ("key bootstrap", "enough"),
    ]
    again = http.patch(f"{ROUTES}/1", json={"state": "ended"})
    assert (again.status_code, again.json()["type"]) == (409, "urn:memgen:problem:route_ended")
    assert http.get(f"{ROUTES}/1").json() == ended


def test_a_canary_is_stopped_by_feedback(http: httpx.Client, services: Services, project_id: uuid.UUID) -> None:
    assert http.post(ROUTES, json={"kind": "canary", "version": 2, "share": 0.5}).json()["arms"][1]["weight"] == 0.5
    stopped = False
    for number in range(60):
        completion, label = _answer(services, project_id, f"s{number}")
        reward = 1 if label == "bot@1" else 0
        stopped = http.post("/v1/feedback", json={"completion_id": completion, "reward": reward}).json()["stopped"]
        if stopped:
            break
    assert stopped
    shown = http.get(f"{ROUTES}/1").json()
    assert shown["state"] == "stopped"
    assert shown["history"][-1]["actor"] == "canary monitor"
    assert "version 2 is worse than 1" in shown["history"][-1]["reason"]
    assert http.get(f"{ROUTES}/1/results").json()["arms"][1]["difference"]["verdict"] == "worse"
    assert {_answer(services, project_id, f"s{number}")[1] for number in range(20)} == {"bot@1"}


def test_a_canary_is_promoted_by_feedback(http: httpx.Client, services: Services, project_id: uuid.UUID) -> None:
    body = {"kind": "canary", "version": 2, "share": 0.5, "promotion": "non_inferior", "margin": 0.5}
    started = http.post(ROUTES, json=body).json()
    assert (started["promotion"], started["margin"]) == ("non_inferior", 0.5)
    waits = http.get(f"{ROUTES}/1/results").json()["arms"][1]
    assert (waits["difference"]["verdict"], waits["difference"]["non_inferior"]) == ("not yet", False)
    for number in range(60):
        completion, _ = _answer(services, project_id, f"s{number}")
        given = http.post("/v1/feedback", json={"completion_id": completion, "reward": 1}).json()
        if given["promoted"]:
            break
    assert (given["promoted"], given["stopped"]) == (True, False)
    shown = http.get(f"{ROUTES}/1").json()
    assert (shown["state"], shown["history"][-1]["kind"]) == ("promoted", "promoted")
    found = http.get(f"{ROUTES}/1/results").json()["arms"][1]
    assert (found["difference"]["verdict"], found["difference"]["non_inferior"]) == ("not yet", True)
    assert found["sessions_needed"] == 0
    move = http.get("/v1/adapters/bot/aliases/champion/history").json()["data"][-1]
    assert (move["from_version"], move["to_version"], move["actor"]) == (1, 2, "canary monitor")
    assert (move["evidence"]["route"], move["evidence"]["means"]) == (1, {"1": 1.0, "2": 1.0})


def test_feedback_twice(http: httpx.Client, services: Services, project_id: uuid.UUID) -> None:
    completion, _ = _answer(services, project_id)
    body = {"completion_id": completion, "reward": 0.5, "comment": "meh"}
    first, again = http.post("/v1/feedback", json=body), http.post("/v1/feedback", json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    other = http.post("/v1/feedback", json={**body, "reward": 1.0})
    assert (other.status_code, other.json()["type"]) == (409, "urn:memgen:problem:feedback_differs")
    assert http.post("/v1/feedback", json={**body, "reward": 1.0, "source": "grader"}).status_code == 201
    unknown = http.post("/v1/feedback", json={"completion_id": "chatcmpl-x", "reward": 1})
    assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:memgen:problem:completion_not_found")
    for reward in (1.5, -1, "1", None):
        assert http.post("/v1/feedback", json={"completion_id": completion, "reward": reward}).status_code == 422


def test_the_same_creation_again_creates_nothing(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "one"}
    first, again = (http.post(ROUTES, json=EVEN, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    different = http.post(ROUTES, json={**EVEN, "level": 0.1}, headers=headers)
    assert different.json()["type"] == "urn:memgen:problem:idempotency_mismatch"
    running = http.post(ROUTES, json=EVEN)
    assert (running.status_code, running.json()["type"]) == (409, "urn:memgen:problem:route_running")
    replaced = http.post(ROUTES, json={"kind": "shadow", "version": 3, "replace": True})
    assert (replaced.status_code, replaced.json()["number"], replaced.json()["shadow_share"]) == (201, 2, 1.0)


def test_pages_newest_first(http: httpx.Client) -> None:
    for number in range(1, 4):
        http.post(ROUTES, json=EVEN)
        http.patch(f"{ROUTES}/{number}", json={"state": "ended"})
    first = http.get(ROUTES, params={"limit": 2}).json()
    rest = http.get(ROUTES, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [[route["number"] for route in page["data"]] for page in (first, rest)] == [[3, 2], [1]]
    assert rest["next_cursor"] is None
    assert http.get(ROUTES, params={"cursor": "x"}).status_code == 422


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"kind": "ab", "arms": [{"version": 1, "weight": 0.5}, {"version": 2, "weight": 0.6}]}, 422, "invalid_route"),
    ({"kind": "ab", "arms": [{"version": 1, "weight": 0.5}, {"version": 1, "weight": 0.5}]}, 422, "invalid_route"),
    ({"kind": "ab", "version": 2}, 422, "invalid_route"),
    ({"kind": "canary", "arms": EVEN["arms"]}, 422, "invalid_route"),
    ({"kind": "canary", "version": 1}, 422, "invalid_route"),
    ({"kind": "canary", "version": 2, "share": 0.9}, 422, "invalid_route"),
    ({"kind": "canary", "version": 3}, 403, "gate_not_passed"),
    ({"kind": "canary", "version": 9}, 404, "version_not_found"),
    ({"kind": "canary", "version": 2, "level": 2}, 422, "invalid_route"),
    ({"kind": "canary", "version": 2, "promotion": "better", "margin": 0.1}, 422, "invalid_route"),
    ({"kind": "canary", "version": 2, "promotion": "always"}, 422, "invalid_request"),
    ({"kind": "shadow", "version": 2, "promotion": "better"}, 422, "invalid_route"),
    ({"kind": "canary", "version": 2, "colour": "red"}, 422, "invalid_request"),
    ({"kind": "rolling", "version": 2}, 422, "invalid_request"),
]


@pytest.mark.parametrize(("body", "status", "code"), REFUSED)
def test_what_is_refused(http: httpx.Client, body: dict[str, Any], status: int, code: str) -> None:
    reply = http.post(ROUTES, json=body)
    assert (reply.status_code, reply.json()["type"]) == (status, f"urn:memgen:problem:{code}")
    assert http.get(ROUTES).json()["data"] == []


def test_scopes_and_projects(http: httpx.Client, services: Services, project_id: uuid.UUID) -> None:
    http.post(ROUTES, json=EVEN)
    completion, _ = _answer(services, project_id)
    with transaction(services.sessions) as session:
        keys = {scope: create_key(session, project_id, scope, [scope])[1] for scope in ("read", "write", "promote")}
        elsewhere = Project(name="elsewhere")
        session.add(elsewhere)
        session.flush()
        keys["stranger"] = create_key(session, elsewhere.id, "stranger", ["admin"])[1]
        ensure_bootstrap_key(session, "mg_another")
        get_adapter(session, project_id, "bot")
    feedback = {"completion_id": completion, "reward": 1}

    def statuses(key: str) -> list[int]:
        headers = _auth(keys[key])
        return [
            http.get(f"{ROUTES}/1/results", headers=headers).status_code,
            http.post(ROUTES, json=EVEN, headers=headers).status_code,
            http.patch(f"{ROUTES}/9", json={"state": "ended"}, headers=headers).status_code,
            http.post("/v1/feedback", json=feedback, headers=headers).status_code,
        ]

    assert statuses("read") == [200, 403, 403, 403]
    assert statuses("promote") == [403, 409, 404, 403]
    assert statuses("stranger") == [404, 404, 404, 404]
    assert statuses("write") == [403, 403, 403, 201]
