"""Jobs over HTTP: what a request must say, and what is decided when it is made."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import httpx
import pytest

from api.endpoints import job_bodies
from api.endpoints.job_bodies import JobIn
from registry import jobs
from registry.adapters import get_adapter
from registry.clock import utc_now
from registry.database import transaction
from registry.job_requests import JobKind
from registry.models import Version
from registry.serving.aliases import promote
from registry.settings import Settings
from registry.versions.state import locked_state, withdraw
from registry.wiring import Services
from tests.api.live_api import serve
from tests.registry.conftest import Rows


@pytest.fixture
def api(settings: Settings, api_key: str, tiny_base: Path) -> Iterator[httpx.Client]:
    with (
        serve(settings.model_copy(update={"base_model": str(tiny_base)})) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}) as client,
    ):
        client.post("/v1/tasks", json={"name": "t", "grader": {"kind": "exact"}})
        client.post("/v1/adapters", json={"name": "bot"})
        yield client


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"kind": "train_weaver", "adapter": "bot"}, 422, "needs `task`"),
        ({"kind": "evaluate", "adapter": "bot"}, 422, "needs `version`"),
        ({"kind": "evaluate", "adapter": "bot", "version": 3}, 404, "adapter 'bot' has no version 3"),
        ({"kind": "train_weaver", "adapter": "bot", "task": "none"}, 404, "no task 'none'"),
        ({"kind": "train_weaver", "adapter": "none", "task": "t"}, 404, "no adapter named 'none'"),
        ({"kind": "train_weaver", "adapter": "bot", "task": "t", "parent": 7}, 404, "has no version 7"),
        ({"kind": "train_weaver", "adapter": "bot", "task": "t", "training": {"steps": 0}}, 422, "steps is 0"),
        ({"kind": "train_weaver", "adapter": "bot", "task": "t", "training": {"step": 1}}, 422, "unknown Training"),
        ({"kind": "fly", "adapter": "bot"}, 422, "train_weaver"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_a_request_that_can_not_run_is_refused_at_once(
    api: httpx.Client, body: dict[str, object], status: int, detail: str
) -> None:
    refused = api.post("/v1/jobs", json=body)
    assert refused.status_code == status
    assert detail in refused.json()["detail"]
    assert api.get("/v1/jobs").json()["data"] == []


def test_every_kind_that_a_body_may_name_has_a_reader() -> None:
    offered = set(get_args(JobIn.model_fields["kind"].annotation))
    assert set(job_bodies.READERS) | {JobKind.JUDGE} == offered
    assert offered == set(JobKind) - {JobKind.CHECK_IMPORT, JobKind.IMPORT}, "those two are made by an import"


def test_everything_is_decided_when_the_job_is_made(api: httpx.Client) -> None:
    made = api.post("/v1/jobs", json={"kind": "train_weaver", "adapter": "bot", "task": "t", "training": {"steps": 7}})
    assert made.status_code == 202
    params = made.json()["params"]
    assert (params["task"], params["parent"], params["promote"], params["training"]["steps"]) == ("t", None, True, 7)
    assert params["training"]["batch_size"] == 8


def test_the_stream_ends_with_the_job(api: httpx.Client, services: Services) -> None:
    job_id = api.post("/v1/jobs", json={"kind": "train_weaver", "adapter": "bot", "task": "t"}).json()["id"]
    with transaction(services.sessions) as session:
        attempt = jobs.claim(session, uuid.UUID(job_id), "w", 60)
        assert attempt == 1
        jobs.finish(session, uuid.UUID(job_id), attempt, "succeeded", result={"version": 1})
    with api.stream("GET", f"/v1/jobs/{job_id}/stream") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = list(stream.iter_lines())
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert [event["message"] for event in told if "message" in event] == ["queued", "succeeded"]
    assert [job["state"] for job in told if "state" in job] == ["succeeded"]
    assert api.get(f"/v1/jobs/{uuid.uuid4()}/stream").status_code == 404


def test_pages_of_jobs(api: httpx.Client) -> None:
    body = {"kind": "train_weaver", "adapter": "bot", "task": "t"}
    made = [api.post("/v1/jobs", json=body).json()["id"] for _ in range(5)]
    first = api.get("/v1/jobs", params={"limit": 3}).json()
    rest = api.get("/v1/jobs", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [job["id"] for job in first["data"] + rest["data"]] == made[::-1]
    assert rest["next_cursor"] is None
    assert api.get("/v1/jobs", params={"cursor": "forged"}).status_code == 422


def test_a_form_other_than_the_adapters_is_named_in_the_job(api: httpx.Client) -> None:
    api.post("/v1/adapters", json={"name": "plain", "memory": {"form": "lora", "rank": 8}})
    asked = [("bot", None), ("bot", "cache"), ("bot", "lora"), ("plain", None), ("plain", "lora"), ("plain", "cache")]
    for (adapter, form), stored in zip(asked, [None, None, "lora", None, None, "cache"], strict=True):
        body = {"kind": "train_weaver", "adapter": adapter, "task": "t"} | ({"form": form} if form else {})
        made = api.post("/v1/jobs", json=body)
        assert made.status_code == 202
        assert made.json()["params"].get("form") == stored
    assert api.get("/v1/adapters/plain").json()["memory"]["trigger"] == "never"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"form": "lora", "training": {"query_start": "words"}}, "training names ['query_start'], which form 'lora'"),
        ({"form": "lora", "method": "grpo", "training": {"trigger_temperature": 1.0}}, "['trigger_temperature']"),
        ({"form": "embedding"}, "the adapter's memories have form 'cache'"),
        ({"form": "lora", "insights": ["Say please."]}, "shows its weaver no insights"),
        ({"form": "prefix"}, "form"),
        ({"kind": "evaluate", "form": "lora", "version": 1}, "takes no `form`"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_what_a_plain_lora_has_not_is_refused_by_name(api: httpx.Client, body: dict[str, object], detail: str) -> None:
    refused = api.post("/v1/jobs", json={"kind": "train_weaver", "adapter": "bot", "task": "t", **body})
    assert refused.status_code == 422
    assert detail in refused.text
    assert api.get("/v1/jobs").json()["data"] == []


def test_a_plain_lora_has_no_trigger_to_train_and_no_latents_to_look_at(
    api: httpx.Client, services: Services, project_id: uuid.UUID
) -> None:
    api.post("/v1/adapters", json={"name": "asking", "memory": {"trigger": "lora"}})
    rows = Rows(services, project_id, "asking")
    rows.task("of-asking")
    rows.version("of-asking", form="lora")
    assert api.get("/v1/adapters/asking/versions/1").json()["form"] == "lora"
    for body, detail in (
        (
            {"kind": "train_trigger", "parent": 1},
            "asking@1 is a plain LoRA of the base (form 'lora') and has no trigger",
        ),
        ({"kind": "analyze", "version": 1}, "there are no latents to look at"),
    ):
        refused = api.post("/v1/jobs", json={"adapter": "asking", **body})
        assert refused.status_code == 422
        assert detail in refused.json()["detail"]


def test_cancelling_twice_is_a_conflict(api: httpx.Client) -> None:
    job_id = api.post("/v1/jobs", json={"kind": "train_weaver", "adapter": "bot", "task": "t"}).json()["id"]
    assert api.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    assert api.post(f"/v1/jobs/{job_id}/cancel").status_code == 409


def test_what_was_withdrawn_or_purged_is_no_parent(
    api: httpx.Client, services: Services, project_id: uuid.UUID
) -> None:
    rows = Rows(services, project_id)
    api.post("/v1/adapters", json={"name": "asking", "memory": {"trigger": "lora"}})
    for adapter in ("bot", "asking"):
        rows = Rows(services, project_id, adapter)
        rows.task(f"of-{adapter}")
        versions = [rows.version(f"of-{adapter}") for _ in range(2)]
        with transaction(services.sessions) as session:
            row = get_adapter(session, project_id, adapter, lock=True)
            first, second = (session.get_one(Version, version.id) for version in versions)
            promote(session, row, "champion", first, actor="test", reason="")
            withdraw(session, first, actor="test", reason="", evidence={})
            locked_state(session, second).purged_at = utc_now()
    refused = [
        ({"kind": "train_weaver", "adapter": "bot", "task": "t"}, "bot@1 was withdrawn at"),
        ({"kind": "train_weaver", "adapter": "bot", "task": "t", "parent": 1}, "bot@1 was withdrawn at"),
        ({"kind": "train_weaver", "adapter": "bot", "task": "t", "parent": 2}, "the bytes of bot@2 were removed"),
        ({"kind": "train_trigger", "adapter": "asking", "parent": 1}, "asking@1 was withdrawn at"),
    ]
    for body, detail in refused:
        answer = api.post("/v1/jobs", json=body)
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (answer.status_code, problem["type"]) == (403, "urn:memgen:problem:version_not_servable")
        assert detail in problem["detail"]
    assert api.get("/v1/jobs").json()["data"][0]["kind"] == "train_weaver", "those of the versions alone"
    made = api.post("/v1/jobs", json={"kind": "train_weaver", "adapter": "bot", "task": "t", "parent": 0})
    assert (made.status_code, made.json()["params"]["parent"]) == (202, None)
