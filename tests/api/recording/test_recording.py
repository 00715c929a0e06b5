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


def with_calls(services: Services, count: int) -> list[Run]:
    """The runs, once so many answers stand in them."""

    def look() -> list[Run]:
        found = rows(services, Run)
        return found if sum(run.calls for run in found) == count else []

    return until(look)


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


def turns(services: Services, run: str) -> list[RunTurn]:
    found = [turn for turn in rows(services, RunTurn) if str(turn.run_id) == run]
    return sorted(found, key=lambda turn: turn.place)


def recorded(client: openai.OpenAI, **options: Any) -> Any:
    return client.get("/recordings", cast_to=object, **options)


def test_nothing_is_recorded_that_was_not_requested(client: openai.OpenAI, services: Services, watch: Watch) -> None:
    watch.say = "Hello."
    hi = [{"role": "user", "content": "hi"}]
    plain: Any = client.chat.completions.create(model="base", messages=hi)
    assert plain.memgen["recorded"] == {"run": None, "reason": "not_requested"}
    reasons = [
        chat(client, hi, store=False).memgen["recorded"]["reason"],
        chat(client, hi, headers={"X-Memgen-Task": "nowhere"}).memgen["recorded"]["reason"],
        client.chat.completions.create(model="base", messages=hi, store=True).memgen["recorded"]["reason"],
    ]
    assert reasons == ["store_false", "task_unknown", "no_task"]
    client.put("/recordings/policy", cast_to=object, body={"mode": "off"})
    assert chat(client, hi).memgen["recorded"]["reason"] == "off"
    client.put("/recordings/policy", cast_to=object, body={"mode": "all", "task": "support"})
    everything: Any = client.chat.completions.create(model="base", messages=hi)
    assert everything.memgen["recorded"]["run"] is not None
    [run] = until(lambda: rows(services, Run))
    assert run.calls == 1
    state = until(lambda: found if len((found := recorded(client))["not_recorded"]) == 4 else None)
    assert state["not_recorded"] == {"store_false": 1, "task_unknown": 1, "no_task": 1, "off": 1}
    assert (state["recorded"], state["runs"]) == (1, {"open": 1})


def test_what_was_sampled_is_recorded_as_it_was_sampled(client: openai.OpenAI, services: Services) -> None:
    hi = [{"role": "user", "content": "hi"}]
    for temperature, top_p in ((1.0, 1.0), (0.7, 0.9), (0.0, 1.0)):
        reply = chat(client, hi, temperature=temperature, top_p=top_p, seed=3, logprobs=True)
        [turn] = until(lambda reply=reply: turns(services, reply.memgen["recorded"]["run"]))
        sampled = turn.sampled
        assert len(sampled["prompt_ids"]) == reply.usage.prompt_tokens
        ended = turn.finish_reason == "stop"
        assert len(sampled["token_ids"]) == reply.usage.completion_tokens + ended
        assert len(sampled["logprobs"]) == len(sampled["token_ids"])
        told = [each.logprob for each in reply.choices[0].logprobs.content]
        assert sampled["logprobs"][: len(told)] == pytest.approx(told)
        assert sampled["settings"]["temperature"] == temperature
        if temperature == 0.7:
            pairs = zip(sampled["drawn_logprobs"], sampled["logprobs"], strict=True)
            assert all(drawn <= 1e-6 for drawn, _ in pairs)
        else:
            assert sampled["drawn_logprobs"] is None
        assert chat(client, hi, temperature=temperature, top_p=top_p, seed=3).choices[0].logprobs is None


def test_streams_and_choices(client: openai.OpenAI, services: Services, watch: Watch) -> None:
    watch.say = "Hello."
    chunks = list(chat(client, [{"role": "user", "content": "hi"}], stream=True, n=3))
    [stamp] = [chunk.memgen for chunk in chunks if getattr(chunk, "memgen", None)]
    assert stamp["recorded"]["run"] is not None
    assert [run.calls for run in with_calls(services, 3)] == [1, 1, 1]


def test_several_choices_go_on_in_one_run_and_the_reply_names_the_first_s(
    client: openai.OpenAI, services: Services, watch: Watch
) -> None:
    watch.say = "Hello."
    asked: list[Any] = [{"role": "user", "content": "hi"}]
    run = chat(client, asked).memgen["recorded"]["run"]
    asked += [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "and?"}]
    several = chat(client, asked, n=3)
    assert several.memgen["recorded"]["run"] == run
    again = chat(client, asked).memgen["recorded"]["run"]
    with_calls(services, 5)
    calls = {(call.completion_id, call.choice): call for call in rows(services, RunCall)}
    assert str(calls[several.id, 0].run_id) == run
    assert all(call.announced_run_id is None for call in calls.values()), "no branch was named as the run"
    assert len({call.run_id for call in calls.values()}) == 4
    assert again != run
    shown: Any = client.get(f"/runs/{again}", cast_to=object)
    assert len(shown["recorded"]) == 1


def test_what_is_broken_off_or_late_is_no_answer_and_the_run_goes_on(
    client: openai.OpenAI, services: Services, watch: Watch
) -> None:
    watch.say = "Hello."
    asked: list[Any] = [{"role": "user", "content": "hi"}]
    run = chat(client, asked).memgen["recorded"]["run"]
    asked += [{"role": "assistant", "content": "Hello."}, {"role": "user", "content": "and?"}]
    watch.hold(after=2)
    with chat(client, asked, stream=True) as stream:
        next(iter(stream))
    with pytest.raises(openai.APIStatusError):
        chat(client.with_options(max_retries=0), asked, headers={"X-Memgen-Timeout": "0.2"})
    watch.go()
    assert chat(client, asked).memgen["recorded"]["run"] == run
    [found] = with_calls(services, 2)
    assert (str(found.id), found.turns) == (run, 2)


def test_other_apis_are_recorded_as_chats(client: openai.OpenAI, services: Services, watch: Watch) -> None:
    watch.say = "Hello."
    headers = {"X-Memgen-Task": "support", "X-Session-Id": "s"}
    first: Any = client.responses.create(model="base", input="hi", store=True, extra_headers=headers)
    second: Any = client.responses.create(
        model="base", input="and?", store=True, previous_response_id=first.id, extra_headers=headers
    )
    assert first.memgen["recorded"]["run"] == second.memgen["recorded"]["run"]
    body = {"model": "base", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
    client.post("/messages", cast_to=object, body=body, options={"headers": headers})
    assert sorted(run.calls for run in with_calls(services, 3)) == [1, 2]


def test_hostile_headers(client: openai.OpenAI) -> None:
    hi = [{"role": "user", "content": "hi"}]
    for headers in ({"X-Memgen-Run": "later"}, {"X-Memgen-Task": "No Such Name!"}, {"X-Memgen-Task": "x" * 5000}):
        with pytest.raises(openai.BadRequestError):
            chat(client, hi, headers=headers)


def test_a_deleted_session_is_forgotten_and_does_not_come_back(
    client: openai.OpenAI, services: Services, watch: Watch
) -> None:
    watch.say = "Hello."
    chat(client, [{"role": "user", "content": "hi"}], headers={"X-Session-Id": "s"})
    until(lambda: rows(services, Run))
    body = {"scope": "session", "id": "s", "policy": "keep", "reason": "wish", "dry_run": False, "expected": 0}
    shown: Any = client.post("/deletions", cast_to=object, body={**body, "dry_run": True})
    assert shown["affected"]["runs"] == 1
    client.post("/deletions", cast_to=object, body=body)
    assert rows(services, Run) == rows(services, RunTurn) == []
    assert [call.run_id for call in rows(services, RunCall)] == [None]
