"""Idempotency-Keys belong to a route, whatever its schemas are called; replies of the release before still count."""

import json
import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import create_app
from api.endpoints.adapters import AdapterIn
from api.http.idempotency import FORMER_NAMES
from registry.database import transaction
from registry.models import IdempotentReply, Job
from registry.settings import Settings
from registry.wiring import Services
from tests.api.stored import make_adapter, make_task

JOB = {"kind": "train_weaver", "adapter": "bot", "task": "t"}


@pytest.fixture
def client(settings: Settings, api_key: str, services: Services, project_id: uuid.UUID) -> Iterator[TestClient]:
    with transaction(services.sessions) as session:
        make_adapter(session, project_id)
        make_task(session, project_id, "t")
    app = create_app(settings, serve_model=False)
    with TestClient(app, headers={"Authorization": f"Bearer {api_key}"}) as opened:
        yield opened


def stored_names(services: Services) -> list[str]:
    with transaction(services.sessions) as session:
        return list(session.scalars(sa.select(IdempotentReply.endpoint)))


def test_a_key_is_stored_by_method_and_path_template(client: TestClient, services: Services) -> None:
    headers = {"Idempotency-Key": "k"}
    first, again = (client.post("/v1/jobs", json=JOB, headers=headers) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert stored_names(services) == ["POST /v1/jobs"]


def test_one_key_on_two_routes_is_two_keys(client: TestClient, services: Services) -> None:
    headers = {"Idempotency-Key": "k"}
    schedule = {"name": "n", "adapter": "bot", "task": "t", "new_trajectories": 5}
    assert client.post("/v1/jobs", json=JOB, headers=headers).status_code == 202
    assert client.post("/v1/schedules", json=schedule, headers=headers).status_code == 201
    assert sorted(stored_names(services)) == ["POST /v1/jobs", "POST /v1/schedules"]


def test_a_reply_that_the_release_before_stored_is_returned(client: TestClient, services: Services) -> None:
    headers = {"Idempotency-Key": "k"}
    first = client.post("/v1/jobs", json=JOB, headers=headers)
    with transaction(services.sessions) as session:
        session.execute(sa.update(IdempotentReply).values(endpoint=FORMER_NAMES["POST /v1/jobs"]))
    assert client.post("/v1/jobs", json=JOB, headers=headers).json()["id"] == first.json()["id"]
    other = client.post("/v1/jobs", json={**JOB, "promote": False}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (409, "urn:memgen:problem:idempotency_mismatch")
    with transaction(services.sessions) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Job)) == 1
    assert stored_names(services) == ["JobOut"]


def test_the_names_of_routes_in_stored_replies(client: TestClient) -> None:
    """Renaming a route, or a parameter in its path, changes what stored keys mean; so does nothing else."""
    paths = client.app.openapi()["paths"]  # type: ignore[attr-defined]  # our own app
    taking = {
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method, operation in methods.items()
        if any(each["name"] == "idempotency-key" for each in operation.get("parameters", ()))
    }
    assert taking == {
        "POST /v1/adapters",
        "POST /v1/adapters/{name}/routes",
        "POST /v1/jobs",
        "POST /v1/schedules",
    }
    assert set(FORMER_NAMES) == taking


def test_the_hash_of_a_new_adapter_is_that_of_the_release_before() -> None:
    """A reply that it stored is returned only to the same hash, which is made of the body's fields in this order."""
    body = AdapterIn.model_validate({"name": "bot", "memory": {"latents": 4}})
    assert list(json.loads(body.model_dump_json())) == [
        *("name", "description", "strategy", "replay_share", "gate_margin", "gate_rule", "gate_level", "gate_policy"),
        *("canary_share", "canary_promotion", "canary_margin", "retry_replay_share", "memory"),
    ]
