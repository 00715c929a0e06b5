"""Two processes of the API record one session, and one of them is killed in the middle of a run."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from registry.database import transaction
from registry.models import Run, RunCall, Trajectory
from registry.recordings.joining import lock_recording
from registry.settings import Settings
from registry.tasks import create_task
from registry.wiring import Services
from tests.e2e.proxied import Replica, run_replicas

LETTERS = range(67, 77)
"""Tokens of `a` to `j`: what else the random base says need not be text."""


@dataclass
class Agent:
    """Plays one run in one session, whichever replica answers."""

    headers: dict[str, str]
    messages: list[dict[str, Any]] = field(default_factory=lambda: [{"role": "user", "content": "begin"}])
    told: list[tuple[str, str]] = field(default_factory=list)
    """(id of the answer, the run that it named) of each turn."""

    def turn(self, replica: Replica, **headers: str) -> None:
        """Answered by two letters and the end, whatever the tiny base would say."""
        bias = {"2": 100} | {str(token): 50 for token in LETTERS}
        body = {"model": "base", "messages": self.messages, "max_tokens": 8, "min_tokens": 2, "logit_bias": bias}
        reply = httpx.post(f"{replica.url}/v1/chat/completions", json=body, headers=self.headers | headers, timeout=60)
        assert reply.status_code == 200, reply.text
        answer = reply.json()
        self.told.append((answer["id"], answer["memgen"]["recorded"]["run"]))
        content = answer["choices"][0]["message"]["content"]
        self.messages += [{"role": "assistant", "content": content}, {"role": "user", "content": "and then?"}]


@pytest.fixture
def replicas(settings: Settings, tiny_base: Path, services: Services, project_id: Any, tmp_path: Path) -> Iterator[Any]:
    with transaction(services.sessions) as session:
        create_task(session, project_id, "t", grader={"kind": "exact"}, holdout_share=0.5)
    serving = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})
    with run_replicas(serving, tmp_path) as running:
        yield running


def test_a_run_goes_on_over_two_replicas_and_a_kill(
    replicas: list[Replica], services: Services, project_id: Any, api_key: str
) -> None:
    one, two = replicas
    agent = Agent({"Authorization": f"Bearer {api_key}", "X-Memgen-Task": "t", "X-Session-Id": "s"})
    agent.turn(one)
    agent.turn(two)
    with transaction(services.sessions) as session:
        # As if the database were slow: what is answered stays in the spool, and dies there with its process.
        lock_recording(session, project_id, shared=False)
        agent.turn(one)
        one.kill()
    agent.turn(two)
    one.start()
    one.wait()
    agent.turn(one, **{"X-Memgen-Run": "end"})

    with httpx.Client(base_url=two.url, headers=agent.headers) as client:
        deadline = time.monotonic() + 30
        while (run := client.get(f"/v1/runs/{agent.told[0][1]}").json()).get("state") != "closed":
            assert time.monotonic() < deadline, run
            time.sleep(0.05)
        found = [client.get(f"/v1/runs/{run_id}").json()["id"] for _, run_id in agent.told]
    assert found == [run["id"]] * 5, "each answer names the run"
    assert [call["completion_id"] for call in run["recorded"]] == [answer for answer, _ in agent.told]
    assert (run["close_reason"], run["refusal_code"]) == ("header", None)
    with transaction(services.sessions) as session:
        assert len(session.scalars(select(Run)).all()) == 1
        assert len(session.scalars(select(RunCall)).all()) == 5
        [trajectory] = session.scalars(select(Trajectory))
    assert [message["content"] for message in trajectory.messages] == [each["content"] for each in agent.messages[:-1]]
    assert [message["weight"] for message in trajectory.messages if message["role"] == "assistant"] == [1] * 5
    assert trajectory.sampled is not None
    assert all(trajectory.sampled)
