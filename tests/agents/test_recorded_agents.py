"""Agents' stock clients as recorded agents: with nothing changed but the address and the key, or a header beside them,
each run ends as one trajectory, and feedback on its session or on its last answer becomes its reward."""

import json
import time
import uuid
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from registry.database import transaction
from registry.models import Run
from registry.recordings.policies import set_policy
from registry.tasks import create_task
from registry.wiring import Services
from tests.agents.test_stock_clients import FOGGY, PYTHON, run, url, watch

__all__ = ["url", "watch"]

pytestmark = pytest.mark.skipif(PYTHON is None, reason="make test-agents installs the clients and names their Python")


@pytest.fixture
def recording(services: Services, project_id: uuid.UUID) -> None:
    """The setting: everything is recorded, for the task `travel` unless a header names another."""
    with transaction(services.sessions) as session:
        travel, _ = create_task(session, project_id, "travel", grader={"kind": "exact"}, holdout_share=0.5)
        create_task(session, project_id, "trips", grader={"kind": "exact"}, holdout_share=0.5)
        set_policy(session, project_id, None, mode="all", task=travel, actor="tests")


def give(http: httpx.Client, named: str, reward: float) -> None:
    """Say what a run was worth: by its session, else by its last answer's id. Clients show no id of some."""
    if named.startswith("bare"):
        return
    target = "session_id" if " " in named else "completion_id"
    given = http.post("/v1/feedback", json={target: named, "reward": reward, "source": "environment"})
    assert given.status_code == 201, given.text


def trajectories(http: httpx.Client, services: Services, count: int) -> list[dict[str, Any]]:
    """All of them, once every run is closed; those that no reward has closed are as if they had been quiet for long."""
    deadline = time.monotonic() + 120
    while True:
        with transaction(services.sessions) as session:
            session.execute(update(Run).where(Run.state == "open").values(idle_seconds=0))
            rows = session.execute(select(Run.state, func.count()).group_by(Run.state)).all()
            states = {row[0]: row[1] for row in rows}
        if states == {"closed": count}:
            found = http.get("/v1/trajectories", params={"limit": 100}).json()["data"]
            return [http.get(f"/v1/trajectories/{each['id']}").json() for each in found]
        assert time.monotonic() < deadline, states
        time.sleep(0.1)


def told(messages: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What a run should be: who said what, whom each result answers, what is learned."""
    ids = [call["id"] for message in messages for call in message.get("tool_calls") or ()]
    assert ids == [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    return [
        (
            message["role"],
            _text(message),
            [(call["function"]["name"], json.loads(call["function"]["arguments"]))
             for call in message.get("tool_calls") or ()],
            message.get("weight"),
        )
        for message in messages
        if message["role"] != "system"
    ]  # fmt: skip


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    return "".join(part["text"] for part in content) if isinstance(content, list) else content or ""


EXPECTED = [
    ("user", "How is the weather in the largest city of Peru?", [], None),
    ("assistant", "", [("find_city", {"country": "Peru"})], 1),
    ("tool", "Lima", [], None),
    ("assistant", "I look there.", [("weather", {"city": "Lima"})], 1),
    ("tool", "fog in Lima", [], None),
    ("assistant", FOGGY, [], 1),
]


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize("script", ["openai_client.py", "agents_sdk.py", "langchain_client.py"])
def test_each_run_is_one_trajectory_with_its_reward(script: str, url: str, api_key: str, services: Services) -> None:
    found = run(script, url, api_key, "recorded")
    assert set(found.values()) == {FOGGY}
    rewards = {named: number / 16 for number, named in enumerate(found, 1)}
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=30) as http:
        for named, reward in rewards.items():
            give(http, named, reward)
        stored = trajectories(http, services, len(found))
    for each in stored:
        assert told(each["messages"]) == EXPECTED
        assert {tool["function"]["name"] for tool in each["tools"]} == {"find_city", "weather"}
        assert "not_learned" not in each["metadata"]["recorded"]
        assert each["task"] == ("trips" if each["session_id"] else "travel")
    by_session = {each["session_id"]: each["reward"] for each in stored if each["session_id"]}
    assert by_session == {named: reward for named, reward in rewards.items() if " " in named and named[:4] != "bare"}
    bare = sorted(each["reward"] or 0 for each in stored if not each["session_id"])
    assert bare == sorted(
        0 if named.startswith("bare") else reward for named, reward in rewards.items() if named not in by_session
    )
