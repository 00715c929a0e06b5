"""Answers become runs, and runs trajectories: the stock `openai` client against the real service."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import openai
import pytest
from sqlalchemy import select

from registry.database import transaction
from registry.models import Run, RunCall, RunTurn, Trajectory
from registry.settings import Settings
from registry.tasks import create_task
from registry.wiring import Services
from tests.api.live_api import serve
from tests.api.watched import Watch, watch

__all__ = ["watch"]

_Found = TypeVar("_Found")


@pytest.fixture
def client(settings: Settings, services: Services, tiny_base: Path, api_key: str, project_id: Any) -> Iterator[Any]:
    with transaction(services.sessions) as session:
        create_task(session, project_id, "support", grader={"kind": "exact"}, holdout_share=0.5)
    tiny = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})
    with serve(tiny, serve_model=True) as url, openai.OpenAI(base_url=f"{url}/v1", api_key=api_key) as made:
        yield made


def until(look: Callable[[], _Found], seconds: float = 15) -> _Found:
    """What `look` returns, once it is something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)
    return found


def chat(client: openai.OpenAI, messages: list[Any], **options: Any) -> Any:
    headers = {"X-Memgen-Task": "support", **options.pop("headers", {})}
    return client.chat.completions.create(
        **{"model": "base", "messages": messages, "max_tokens": 64, "store": True, "extra_headers": headers, **options}
    )


def rows(services: Services, what: Any) -> list[Any]:
    with transaction(services.sessions) as session:
        return list(session.scalars(select(what)))


def test_requests_of_one_run_become_one_trajectory(client: openai.OpenAI, services: Services, watch: Watch) -> None:
    watch.say = "Hello there."
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    first = chat(client, messages)
    messages += [first.choices[0].message, {"role": "user", "content": "and then?"}]
    second = chat(client, messages, headers={"X-Memgen-Run": "end"}, stream=False)
    assert first.memgen["recorded"]["run"] == second.memgen["recorded"]["run"]

    [run] = until(lambda: [run for run in rows(services, Run) if run.state == "closed"])
    assert (str(run.id), run.calls, run.close_reason) == (first.memgen["recorded"]["run"], 2, "header")
    assert run.refusal_reason is None
    [trajectory] = rows(services, Trajectory)
    assert run.trajectory_id == trajectory.id
    told = [(m["role"], m["content"], m.get("weight")) for m in trajectory.messages]
    assert told == [
        ("user", "hi", None),
        ("assistant", "Hello there.", 1),
        ("user", "and then?", None),
        ("assistant", "Hello there.", 1),
    ]
    assert {call.completion_id for call in rows(services, RunCall)} == {first.id, second.id}
    assert rows(services, RunTurn) == []
    assert trajectory.trajectory_id == str(run.id)
