"""Trainings from reward over HTTP: what a request must say, and what is decided when it is made."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.adapters import get_adapter
from registry.database import transaction
from registry.settings import Settings
from registry.tasks import get_task
from registry.wiring import Services
from tests.api.live_api import serve
from tests.api.stored import make_version

WEAVER = {"kind": "train_weaver", "adapter": "bot", "task": "t"}
TRIGGER = {"kind": "train_trigger", "adapter": "asks", "parent": 1}
SPELL = {"name": "reasoning-gym:spell_backward"}


@pytest.fixture
def api(
    settings: Settings, services: Services, project_id: uuid.UUID, api_key: str, tiny_base: Path
) -> Iterator[httpx.Client]:
    """Tasks `t` and `text` (without reward), adapters `bot`, `alone` (isolated) and `asks`, which has a version."""
    with (
        serve(settings.model_copy(update={"base_model": str(tiny_base)})) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}) as client,
    ):
        client.post("/v1/tasks", json={"name": "t", "grader": {"kind": "exact"}})
        client.post("/v1/tasks", json={"name": "text", "grader": {"kind": "likelihood"}})
        client.post("/v1/adapters", json={"name": "bot"})
        client.post("/v1/adapters", json={"name": "alone", "strategy": "isolated"})
        assert client.post("/v1/adapters", json={"name": "asks", "memory": {"trigger": "head"}}).status_code == 201
        with transaction(services.sessions) as session:
            make_version(session, get_adapter(session, project_id, "asks"), get_task(session, project_id, "t"))
        yield client


def jobs_of(api: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get("/v1/jobs").json()["data"]
    return [job for job in found if job["params"] != {"task": "t"}]  # the stored version's own


def upload(api: httpx.Client, rewards: list[float]) -> None:
    """Answers to the same twenty prompts, those of each place with its reward."""
    lines = [
        json.dumps(
            {
                "messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{place}"}],
                "reward": reward,
            }
        )
        for n in range(20)
        for place, reward in enumerate(rewards)
    ]
    done = api.post("/v1/trajectories/import", params={"task": "t"}, content="\n".join(lines))
    assert done.json()["accepted"] == len(lines)


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({**WEAVER, "method": "dpo"}, 422, "method"),
        ({**WEAVER, "method": "grpo", "training": {"group_size": 1}}, 422, "group_size is 1; expected at least 2"),
        ({**WEAVER, "method": "grpo", "training": {"steps": "9"}}, 422, "steps is '9'; expected a number of type int"),
        ({**WEAVER, "method": "grpo", "training": {"accumulate_steps": 2}}, 422, "unknown GrpoConfig fields"),
        ({**WEAVER, "training": {"group_size": 8}}, 422, "unknown TrainingConfig fields"),
        ({**WEAVER, "task": "text", "method": "grpo"}, 422, "task 'text' has grader 'likelihood'"),
        ({**WEAVER, "method": "grpo_recorded"}, 422, "no prompt with several recorded answers of different rewards"),
        ({**WEAVER, "environment": SPELL}, 422, "method 'sft' plays nothing"),
        ({**WEAVER, "adapter": "alone", "method": "grpo", "environment": SPELL}, 422, "strategy 'isolated'"),
        (
            {**WEAVER, "method": "grpo", "environment": {"name": "os:system"}},
            422,
            "environment 'os:system' is not known",
        ),
        (
            {**WEAVER, "method": "grpo", "environment": {"name": "textworld", "options": {"folder": "/etc"}}},
            422,
            "got the options ['folder']",
        ),
        ({**WEAVER, "tasks": ["t"]}, 422, "takes no `tasks`"),
        ({**WEAVER, "insights": ["Be brief."]}, 422, "shows its weaver no insights; create an adapter with cue_tokens"),
        ({**WEAVER, "insights": [""]}, 422, "at least 1 character"),
        ({**TRIGGER, "insights": ["Be brief."]}, 422, "nor `insights`"),
        ({**TRIGGER, "parent": None}, 422, "needs `parent`"),
        ({**TRIGGER, "parent": 2}, 404, "has no version 2"),
        ({**TRIGGER, "task": "t"}, 422, "takes neither `task` nor `method`"),
        ({**TRIGGER, "tasks": ["none"]}, 404, "no task 'none'"),
        ({**TRIGGER, "tasks": ["text"]}, 422, "task 'text' has grader 'likelihood'"),
        ({**TRIGGER, "tasks": ["t"], "environment": SPELL}, 422, "both say what to play"),
        ({**TRIGGER, "training": {"penalty": -1}}, 422, "penalty is -1"),
        ({**TRIGGER, "adapter": "bot"}, 422, "the trigger of adapter 'bot' is 'always' and has nothing to learn"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_a_request_that_can_not_run_is_refused_at_once(
    api: httpx.Client, body: dict[str, object], status: int, detail: str
) -> None:
    refused = api.post("/v1/jobs", json=body)
    assert refused.status_code == status, refused.json()
    assert detail in json.dumps(refused.json(), ensure_ascii=False).replace('\\"', '"')
    assert jobs_of(api) == []


def test_the_methods_settings_are_decided_when_the_job_is_made(api: httpx.Client) -> None:
    made = api.post("/v1/jobs", json={**WEAVER, "method": "grpo", "training": {"steps": 7}, "environment": SPELL})
    assert made.status_code == 202, made.json()
    params = made.json()["params"]
    assert (params["method"], params["training"]["steps"], params["training"]["group_size"]) == ("grpo", 7, 8)
    assert params["environment"] == {**SPELL, "options": {}, "items": 256}
    assert api.post("/v1/jobs", json=WEAVER).json()["params"]["method"] == "sft"


def test_a_trigger_plays_what_its_version_has_learned_unless_told(api: httpx.Client) -> None:
    params = api.post("/v1/jobs", json={**TRIGGER, "training": {"penalty": 0.05}}).json()["params"]
    assert (params["parent"], params["tasks"], params["training"]["penalty"]) == (1, ["t"], 0.05)
    assert params["training"]["steps"] == 60


def test_recorded_answers_need_a_difference_in_reward(api: httpx.Client) -> None:
    upload(api, [1.0, 1.0])
    asked = {**WEAVER, "method": "grpo_recorded"}
    assert api.post("/v1/jobs", json=asked).status_code == 422
    upload(api, [0.25])  # the first answers again, now with another reward
    assert api.post("/v1/jobs", json=asked).status_code == 202
