"""An upstream's answers as demonstrations: what is recorded of them, and what is not."""

import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from opentelemetry.trace import Tracer
from sqlalchemy import func, select

from registry.database import transaction
from registry.models import RecordingCount, Run, RunCall, Trajectory
from registry.tasks import create_task
from registry.wiring import Services
from tests.api.gateway.conftest import UPSTREAM_KEY
from tests.api.gateway.upstream_server import HELLO, Received, UpstreamServer, chunk, completion
from tests.otlp_samples import exports, genai, requests

HI: list[Any] = [{"role": "user", "content": "hi"}]
GO = {"type": "function", "function": {"name": "go", "parameters": {"type": "object", "properties": {"to": {}}}}}
TASK = {"X-Memgen-Task": "support"}
LAST = {**TASK, "X-Memgen-Run": "end"}


@pytest.fixture
def settings(settings: Any, tiny_base: Path) -> Any:
    return settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})


@pytest.fixture(autouse=True)
def task(services: Services, project_id: uuid.UUID) -> None:
    with transaction(services.sessions) as session:
        create_task(session, project_id, "support", grader={"kind": "exact"}, holdout_share=0.2)


def post(http: httpx.Client, messages: list[Any], **more: Any) -> Any:
    headers = more.pop("headers", TASK)
    body = {"model": "strong/gpt-5", "messages": messages, **more}
    reply = http.post("/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply


def trajectories(services: Services, count: int, seconds: float = 30.0) -> list[dict[str, Any]]:
    """The recorded trajectories, once there are so many."""
    deadline = time.monotonic() + seconds
    while True:
        with transaction(services.sessions) as session:
            found = list(session.scalars(select(Trajectory).order_by(Trajectory.seq)))
            if len(found) >= count or time.monotonic() > deadline:
                assert len(found) == count
                return [
                    {name: getattr(row, name) for name in ("messages", "tools", "sampled", "reward")} for row in found
                ]
        time.sleep(0.1)


def test_a_run_of_tool_calls_becomes_one_demonstration(
    http: httpx.Client, client: openai.OpenAI, upstream: UpstreamServer, services: Services
) -> None:
    """Streamed in pieces, as a stock client's loop sends it back."""

    def play(request: Received) -> None:
        request.begin()
        if request.body["messages"][-1]["role"] == "user":
            head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "go", "arguments": ""}}
            request.event(chunk({"role": "assistant", "content": None, "tool_calls": [head]}))
            for piece in ('{"to"', ': "no', 'rth"}'):
                request.event(chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}))
            request.event(chunk({}, finish="tool_calls"))
        else:
            request.event(chunk({"role": "assistant", "content": "You are "}))
            request.event(chunk({"content": "there."}))
            request.event(chunk({}, finish="stop"))
        request.send(b"data: [DONE]\n\n")
        request.end()

    upstream.play = play
    tools: Any = [GO]
    with client.chat.completions.stream(model="strong/gpt-5", messages=HI, tools=tools, extra_headers=TASK) as stream:
        call = stream.get_final_completion().choices[0].message.tool_calls[0]
    called = {"id": call.id, "type": "function", "function": {"name": "go", "arguments": call.function.arguments}}
    result = {"role": "tool", "tool_call_id": call.id, "content": "ok"}
    reply = post(
        http, [*HI, {"role": "assistant", "tool_calls": [called]}, result], tools=[GO], stream=True, headers=LAST
    )
    uuid.UUID(reply.headers["x-memgen-run"])
    [recorded] = trajectories(services, 1)
    assert [message["role"] for message in recorded["messages"]] == ["user", "assistant", "tool", "assistant"]
    [made] = recorded["messages"][1]["tool_calls"]
    assert json.loads(made["function"]["arguments"]) == {"to": "north"}
    assert recorded["messages"][3]["content"] == "You are there."
    assert all(message.get("weight", 1) == 1 for message in recorded["messages"])
    assert recorded["tools"] == [GO]
    assert recorded["sampled"] is None
    with transaction(services.sessions) as session:
        [run] = session.scalars(select(Run))
        assert str(run.id) == reply.headers["x-memgen-run"]


def test_whole_replies_say_what_became_of_them(http: httpx.Client, services: Services) -> None:
    reply = post(http, HI).json()
    assert reply["memgen"]["version"] == "strong/gpt-5"
    run = reply["memgen"]["recorded"]
    assert run["reason"] is None
    more = [*HI, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "more"}]
    again = post(http, more, headers=LAST).json()
    assert again["memgen"]["recorded"] == run
    [recorded] = trajectories(services, 1)
    assert [message["content"] for message in recorded["messages"]] == ["hi", "Hello", "more", "Hello"]


def test_nothing_is_recorded_that_did_not_ask(http: httpx.Client, services: Services) -> None:
    assert post(http, HI, headers={}).json()["memgen"]["recorded"] == {"run": None, "reason": "not_requested"}
    assert "x-memgen-run" not in post(http, HI, headers={}, stream=True).headers
    assert post(http, HI, store=False).json()["memgen"]["recorded"]["reason"] == "store_false"
    assert post(http, HI, headers={}, store=True).json()["memgen"]["recorded"]["reason"] == "no_task"
    with transaction(services.sessions) as session:
        assert list(session.scalars(select(RunCall))) == []


def test_what_is_no_whole_answer_is_not_recorded(
    http: httpx.Client, upstream: UpstreamServer, services: Services
) -> None:
    def break_off(request: Received) -> None:
        request.begin()
        for each in HELLO[:3]:
            request.event(each)
        request.break_off()

    def end_without_reason(request: Received) -> None:
        request.begin()
        request.event(HELLO[1])
        request.send(b"data: [DONE]\n\n")
        request.end()

    def fail(request: Received) -> None:
        request.begin()
        request.event(chunk({"content": "x"}, finish="stop"))
        request.event({"error": {"message": "no"}})
        request.end()

    def say_nothing(request: Received) -> None:
        request.begin()
        request.event(chunk({"role": "assistant"}, finish="stop"))
        request.send(b"data: [DONE]\n\n")
        request.end()

    for play in (break_off, end_without_reason, fail, say_nothing):
        upstream.play = play
        post(http, HI, stream=True, headers=LAST)
    odd = {"content": None, "function_call": {"name": "go", "arguments": "{}"}}
    upstream.play = lambda request: request.reply(completion(odd))
    assert post(http, HI).json()["memgen"]["recorded"] == {"run": None, "reason": "unreadable"}
    upstream.play = lambda request: request.reply(completion({"content": "Hello"}))
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}]
    assert post(http, picture).json()["memgen"]["recorded"]["reason"] == "unreadable"
    counts: dict[str, int] = {}
    deadline = time.monotonic() + 60
    while counts != {"unreadable": 4} and time.monotonic() < deadline:
        with transaction(services.sessions) as session:
            assert list(session.scalars(select(RunCall))) == []
            counts = {row.outcome: row.count for row in session.scalars(select(RecordingCount))}
        time.sleep(0.1)
    assert counts == {"unreadable": 4}


def test_no_key_is_in_any_row(http: httpx.Client, upstream: UpstreamServer, services: Services) -> None:
    """Not even of an upstream that says it."""
    upstream.play = lambda request: request.reply(completion({"content": f"I know {UPSTREAM_KEY}"}))
    post(http, HI, headers=LAST)
    [recorded] = trajectories(services, 1)
    assert recorded["messages"][1]["content"] == "I know [key]"


def test_a_key_that_an_upstream_quotes_is_in_no_row(
    http: httpx.Client, upstream: UpstreamServer, services: Services
) -> None:
    """Nor in an event that is written anew because it has no id; and not in pieces that are put together."""

    def play(request: Received) -> None:
        request.begin()
        whole = chunk({"content": f"You sent {UPSTREAM_KEY}"})
        del whole["id"]
        request.event(whole)
        for piece in (", I mean ", UPSTREAM_KEY[:5], UPSTREAM_KEY[5:]):
            request.event(chunk({"content": piece}))
        request.event(chunk({}, finish="stop"))
        request.send(b"data: [DONE]\n\n")
        request.end()

    upstream.play = play
    reply = post(http, HI, stream=True, headers=LAST)
    assert "You sent [key]" in reply.text
    [recorded] = trajectories(services, 1)
    assert recorded["messages"][-1]["content"] == "You sent [key], I mean [key]"


def test_a_tracer_that_is_quicker_than_the_recorder_has_its_reward_given(
    http: httpx.Client, upstream: UpstreamServer, services: Services, project_id: uuid.UUID
) -> None:
    """The agent's exporter sends the span of a call as soon as it is answered, before the answer stands in a run."""

    def run(tracer: Tracer) -> None:
        with tracer.start_as_current_span("invoke_agent") as agent:
            with tracer.start_as_current_span("chat") as span:
                genai(span, *requests()[0])
                span.set_attribute("gen_ai.response.id", reply.json()["id"])
            agent.set_attribute("memgen.reward", 0.25)

    with ThreadPoolExecutor(1) as threads:
        with transaction(services.sessions) as session:
            # What moves answers into the runs of this session waits for this transaction.
            turn = func.hashtextextended(f"runs of {project_id} in session s-1", 0)
            session.execute(select(func.pg_advisory_xact_lock(turn)))
            reply = post(http, HI, headers={**TASK, "X-Session-Id": "s-1"})
            headers = {"Content-Type": "application/x-protobuf", **TASK}
            body = b"".join(exports(run))
            sent = threads.submit(http.post, "/v1/traces", content=body, headers=headers)
            time.sleep(0.5)
        assert sent.result().status_code == 200
    [recorded] = trajectories(services, 1)
    assert (recorded["messages"][0]["content"], recorded["reward"]) == ("hi", 0.25)
