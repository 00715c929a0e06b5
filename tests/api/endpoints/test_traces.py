"""`/v1/traces` against the real service, with the real exporter of the SDK, and with what no exporter sends."""

import gzip
import json
import math
import time
import tracemalloc
import uuid
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.trace import Tracer
from sqlalchemy import func, select, update

from api.endpoints.traces import _read
from api.recording.span_calls import TakenSpans
from registry.adapters import create_adapter
from registry.clock import utc_now
from registry.database import transaction
from registry.models import Feedback, Run, RunCall, Trajectory
from registry.recordings.call import RecordedCall
from registry.recordings.joining import record_calls
from registry.recordings.policies import set_policy
from registry.serving.exposures import record_exposure
from registry.serving.resolution import Resolution
from registry.settings import Settings
from registry.tasks import create_task
from registry.wiring import Services
from tests.api.live_api import serve
from tests.otlp_samples import CONVENTIONS, as_json, chat_messages, exports, genai, requests, run_agent

PROTOBUF = {"Content-Type": "application/x-protobuf"}
LIMIT = 300_000


@pytest.fixture
def url(settings: Settings, services: Services, tiny_base: Path, project_id: uuid.UUID) -> Iterator[str]:
    with transaction(services.sessions) as session:
        create_task(session, project_id, "support", grader={"kind": "exact"}, holdout_share=0.5)
        set_policy(session, project_id, None, mode="asked", actor="tests")
    tiny = settings.model_copy(update={"base_model": str(tiny_base), "max_traces_bytes": LIMIT})
    with serve(tiny, serve_model=False) as found:
        yield f"{found}/v1/traces"


@pytest.fixture
def post(url: str, api_key: str) -> Iterator[Callable[..., httpx.Response]]:
    known = {"Authorization": f"Bearer {api_key}", "X-Memgen-Task": "support", "Content-Type": "application/json"}
    with httpx.Client(timeout=30) as client:
        yield lambda content, **headers: client.post(url, content=content, headers={**known, **headers})


def export(url: str, run: Callable[[Tracer], None], headers: dict[str, str], *, batch: bool, **options: Any) -> None:
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    exporter = OTLPSpanExporter(url, headers=headers, **options)
    provider.add_span_processor(BatchSpanProcessor(exporter) if batch else SimpleSpanProcessor(exporter))
    run(provider.get_tracer("tests"))
    provider.shutdown()


def stored(services: Services, count: int = 1, calls: int | None = None) -> list[Trajectory]:
    """The trajectories, once so many calls (three of each run) have come in; open runs are as if quiet for long."""
    deadline = time.monotonic() + 60
    while True:
        with transaction(services.sessions) as session:
            come = session.scalar(select(func.count()).select_from(RunCall)) or 0
            if come >= (calls or 3 * count):
                session.execute(update(Run).where(Run.state == "open").values(idle_seconds=0))
            states = set(session.scalars(select(Run.state)))
            found = list(session.scalars(select(Trajectory).order_by(Trajectory.seq)))
        if states == {"closed"} and len(found) >= count:
            return found
        assert time.monotonic() < deadline, (states, found)
        time.sleep(0.05)


def plain(messages: list[Any]) -> list[Any]:
    return [{name: value for name, value in message.items() if name != "weight"} for message in messages]


@pytest.mark.parametrize(
    ("batch", "compression"),
    [(True, Compression.Gzip), (False, Compression.NoCompression), (False, Compression.Deflate)],
    ids=["one export", "an export a span", "deflate"],
)
def test_an_exporter_sends_a_run_directly(
    url: str, api_key: str, services: Services, batch: bool, compression: Compression
) -> None:
    headers = {"Authorization": f"Bearer {api_key}", "X-Memgen-Task": "support"}
    run = partial(run_agent, write=genai, **{"gen_ai.conversation.id": "s-1"})
    export(url, run, headers, batch=batch, compression=compression)
    [trajectory] = stored(services)
    assert plain(trajectory.messages) == chat_messages()
    assert [m["weight"] for m in trajectory.messages if m["role"] == "assistant"] == [1, 1, 1]
    # The agent's span, which names the conversation, ends last: alone it comes too late for its calls.
    assert trajectory.session_id == ("s-1" if batch else None)
    assert trajectory.sampled is None
    assert trajectory.details["otlp"]["service"] == "shop"


def test_the_key_may_come_as_exporters_can_send_it(
    url: str, api_key: str, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-api-key={api_key},x-memgen-task=support")
    export(url, partial(run_agent, write=genai), {}, batch=True)
    assert len(stored(services)) == 1
    exporter = OTLPSpanExporter(url, headers={"x-api-key": "mg_wrong"})
    provider = TracerProvider()
    span = provider.get_tracer("tests").start_span("chat")
    span.end()
    assert exporter.export([span]) is SpanExportResult.FAILURE  # type: ignore[list-item]  # the SDK's own span


def test_every_convention_and_json_are_taken(post: Callable[..., httpx.Response], services: Services) -> None:
    for number, (name, write) in enumerate(CONVENTIONS.items()):
        run = partial(run_agent, write=write, question=f"{name}?", **{"session.id": name, "memgen.task": "support"})
        for each in exports(run):
            taken = post(json.dumps(as_json(each)).encode()) if number % 2 else post(each, **PROTOBUF)
            assert taken.status_code == 200
            assert taken.content == (b"{}" if number % 2 else b"")
    assert len(stored(services, len(CONVENTIONS))) == len(CONVENTIONS)


def test_a_conversation_s_name_that_no_session_may_have_is_none(
    post: Callable[..., httpx.Response], services: Services
) -> None:
    """No index takes it, so it once held up all recording."""
    name = "".join(chr(0x4E00 + place * 7919 % 20_000) for place in range(4_000))
    for each in exports(partial(run_agent, write=genai, **{"gen_ai.conversation.id": name})):
        assert post(each, **PROTOBUF).status_code == 200
    [trajectory] = stored(services)
    assert trajectory.session_id is None


def test_sending_again_adds_nothing(post: Callable[..., httpx.Response], services: Services) -> None:
    for each in exports(partial(run_agent, write=genai)) * 2:
        assert post(each, **PROTOBUF).status_code == 200
    time.sleep(1)
    assert len(stored(services)) == 1


def test_what_this_service_answered_is_not_recorded_twice(
    post: Callable[..., httpx.Response], services: Services, project_id: uuid.UUID
) -> None:
    with transaction(services.sessions) as session:
        record_exposure(session, project_id, "chatcmpl-own", Resolution(None, None), None)

    def run(tracer: Tracer) -> None:
        with tracer.start_as_current_span("chat") as span:
            genai(span, *requests()[0])
            span.set_attribute("gen_ai.response.id", "chatcmpl-own")

    [only] = exports(run)
    assert post(only, **PROTOBUF).content == b""
    time.sleep(0.5)
    with transaction(services.sessions) as session:
        assert session.scalars(select(Run)).all() == []


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "the reward first"])
def test_a_reward_among_the_spans_is_the_runs(
    post: Callable[..., httpx.Response], services: Services, order: int
) -> None:
    """On the agent's span, which ends last and is exported by itself."""
    said = {"memgen.reward": 0.75, "memgen.reward_source": "environment"}
    for each in exports(partial(run_agent, write=genai, **said))[::order] * 2:
        assert post(each, **PROTOBUF).content == b""
    [trajectory] = stored(services)
    assert (trajectory.reward, trajectory.reward_source) == (0.75, "environment")
    assert plain(trajectory.messages) == chat_messages()
    with transaction(services.sessions) as session:
        closed = session.scalars(select(Run.close_reason)).one()
    assert closed == ("reward" if order == 1 else "idle")


def test_feedback_that_is_quicker_than_the_exporter_finds_the_run(
    url: str, api_key: str, post: Callable[..., httpx.Response], services: Services
) -> None:
    sent = exports(partial(run_agent, write=genai, **{"gen_ai.conversation.id": "s-1"}))
    given = httpx.post(
        url.replace("traces", "feedback"),
        json={"session_id": "s-1", "reward": 0.25},
        headers={"Authorization": f"Bearer {api_key}"},
    )
    assert (given.status_code, given.json()["runs"]) == (201, [])
    assert post(b"".join(sent), **PROTOBUF).content == b""
    [trajectory] = stored(services)
    assert trajectory.reward == 0.25


def test_a_reward_that_is_none_is_a_partial_success(post: Callable[..., httpx.Response], services: Services) -> None:
    for value in (2, -0.5, True, "good", math.nan):
        count, message = rejected(post(b"".join(exports(partial(run_agent, write=genai, **{"memgen.reward": value}))),
                                       **PROTOBUF))  # fmt: skip
        assert (count, message[:15]) == (1, "reward_invalid:"), value
    huge = {"key": "memgen.reward", "value": {"intValue": 10**4000}}
    span = {"traceId": "ab" * 16, "spanId": "cd" * 8, "attributes": [huge]}
    count, message = rejected(post(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()))
    assert (count, message[:15]) == (1, "reward_invalid:")
    with transaction(services.sessions) as session:
        assert session.scalars(select(Feedback)).all() == []


def test_another_reward_of_a_trace_is_told_and_the_first_stands(
    post: Callable[..., httpx.Response], services: Services
) -> None:
    whole = as_json(b"".join(exports(partial(run_agent, write=genai, **{"memgen.success": False}))))
    assert post(json.dumps(whole).encode()).content == b"{}"
    trace = whole["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"]
    again = {"traceId": trace, "attributes": [{"key": "memgen.reward", "value": {"doubleValue": 1.0}}]}
    resource = {"attributes": [{"key": "memgen.reward", "value": {"doubleValue": 0.5}}]}
    spans = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [again]}]}]}
    count, message = rejected(post(json.dumps(spans).encode()))
    assert (count, message[:17]) == (1, "feedback_differs:")
    [trajectory] = stored(services)
    assert (trajectory.reward, trajectory.reward_source) == (0.0, "user"), "what a resource says is of no single run"


def test_a_reward_of_a_trace_reaches_what_this_service_answered_in_it(
    post: Callable[..., httpx.Response], services: Services, project_id: uuid.UUID
) -> None:
    call = RecordedCall(
        "chatcmpl-own", project_id, uuid.uuid4(), "support", "base", [{"role": "user", "content": "hi"}], None,
        {"role": "assistant", "content": "Hello."}, "stop", utc_now(), utc_now(),
    )  # fmt: skip
    with transaction(services.sessions) as session:
        record_exposure(session, project_id, "chatcmpl-own", Resolution(None, None), None)
        record_calls(session, [call], most_bytes=10_000)

    def run(tracer: Tracer) -> None:
        with tracer.start_as_current_span("invoke_agent") as agent:
            with tracer.start_as_current_span("chat") as span:
                genai(span, *requests()[0])
                span.set_attribute("gen_ai.response.id", "chatcmpl-own")
            agent.set_attribute("memgen.reward", 0.25)

    for each in exports(run):
        assert post(each, **PROTOBUF).content == b""
    [trajectory] = stored(services, calls=1)
    assert (trajectory.reward, trajectory.messages[0]["content"]) == (0.25, "hi")


def test_the_policy_of_the_adapter_that_answered_counts(
    post: Callable[..., httpx.Response], services: Services, project_id: uuid.UUID
) -> None:
    with transaction(services.sessions) as session:
        bot = create_adapter(session, project_id, name="bot", base_model="tiny", base_revision="1")
        set_policy(session, project_id, bot, mode="off", actor="tests")

    def run(tracer: Tracer) -> None:
        for model in ("bot", "bot@champion", "bot@7", "other"):
            with tracer.start_as_current_span("chat") as span:
                genai(span, *requests()[0])
                span.set_attribute("gen_ai.request.model", model)

    count, message = rejected(post(b"".join(exports(run)), **PROTOBUF))
    assert (count, message[:4]) == (3, "off:")


def rejected(answer: httpx.Response) -> tuple[int, str]:
    assert answer.status_code == 200
    if answer.headers["content-type"] == "application/json":
        partial_success = answer.json().get("partialSuccess", {})
        return int(partial_success.get("rejectedSpans", 0)), partial_success.get("errorMessage", "")
    found = ExportTraceServiceResponse.FromString(answer.content).partial_success
    return found.rejected_spans, found.error_message


def test_what_is_not_recorded_is_a_partial_success(
    post: Callable[..., httpx.Response], services: Services, project_id: uuid.UUID
) -> None:
    bare = exports(partial(run_agent, write=lambda span, *_: span.set_attribute("gen_ai.operation.name", "chat")))[0]
    good = exports(partial(run_agent, write=genai))[0]
    for headers, send in ((PROTOBUF, lambda data: data), ({}, lambda data: json.dumps(as_json(data)).encode())):
        count, message = rejected(post(send(bare), **headers))
        assert (count, message[:16]) == (1, "otlp_no_content:")
        assert "CAPTURE_MESSAGE_CONTENT" in message
        count, message = rejected(post(send(good), **headers, **{"X-Memgen-Task": ""}))
        assert (count, message[:8]) == (1, "no_task:")
        count, message = rejected(post(send(good), **headers, **{"X-Memgen-Task": "absent"}))
        assert (count, message[:13]) == (1, "task_unknown:")
        assert post(send(good), **headers, **{"X-Memgen-Task": "no name!"}).status_code == 400
    with transaction(services.sessions) as session:
        set_policy(session, project_id, None, mode="off", actor="tests")
    assert rejected(post(good, **PROTOBUF))[1][:4] == "off:"


@pytest.mark.parametrize("kind", ["application/json", "application/x-protobuf"])
def test_refusals_have_the_shape_of_otlp(post: Callable[..., httpx.Response], kind: str) -> None:
    packed = gzip.compress(b"x" * 100)
    sent: list[tuple[int, bytes, dict[str, str]]] = [
        (400, b"{not otlp", {}),
        (400, b"\x0a\xff", {}),
        (400, packed[:-9], {"Content-Encoding": "gzip"}),
        (400, b"no gzip", {"Content-Encoding": "gzip"}),
        (413, gzip.compress(bytes(50_000_000)), {"Content-Encoding": "gzip"}),
        (413, zlib.compress(bytes(50_000_000)), {"Content-Encoding": "deflate"}),
        (413, bytes(LIMIT + 1), {}),
        (415, b"{}", {"Content-Encoding": "br"}),
        (401, b"{}", {"Authorization": "Bearer mg_wrong"}),
    ]
    for status, body, headers in sent:
        answer = post(body, **{"Content-Type": kind, **headers})
        assert (answer.status_code, answer.headers["content-type"]) == (status, kind)
        if kind == "application/json":
            assert set(answer.json()) == {"code", "message"}
        else:
            from google.rpc.status_pb2 import Status

            assert Status.FromString(answer.content).message
    assert post(b"{}", **{"Content-Type": "text/csv"}).status_code == 415
    assert post(b"", **PROTOBUF).status_code == 200, "nothing is a good export of nothing"


hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "resourceSpans",
                    "scopeSpans",
                    "spans",
                    "attributes",
                    "key",
                    "value",
                    "stringValue",
                    "events",
                    "traceId",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.one_of(hostile.map(json.dumps).map(str.encode), st.binary(max_size=60)), st.booleans())
def test_nothing_is_a_fault_of_the_server(post: Callable[..., httpx.Response], body: bytes, protobuf: bool) -> None:
    assert post(body, **(PROTOBUF if protobuf else {})).status_code in (200, 400)


@pytest.mark.parametrize("protobuf", [False, True])
def test_an_export_of_nothing_takes_little_memory(protobuf: bool) -> None:
    """One request must not take the memory of all others."""
    count = 100_000
    if protobuf:
        request = ExportTraceServiceRequest()
        spans = request.resource_spans.add().scope_spans.add().spans
        for _ in range(count):
            spans.add()
        data = request.SerializeToString()
    else:
        data = b'{"resourceSpans": [{"scopeSpans": [{"spans": [' + b"{}," * (count - 1) + b"{}]}]}]}"
    tracemalloc.start()
    calls, facts = _read(data, protobuf, TakenSpans())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (calls, list(facts)) == ([], [""])
    assert peak < 60 * len(data)


def test_bad_spans_never_take_good_ones_with_them(post: Callable[..., httpx.Response], services: Services) -> None:
    def run(tracer: Tracer) -> None:
        for messages in ("[7]", '[{"role": "user", "content": "a\\u0000"}]', '[{"role": "user", "content": "\\ud83d"}]',
                         '[{"role": "user", "parts": [{"type": "blob"}]}]', '[{"role": "tool", "content": {"a": NaN}}]',
                         json.dumps([{"role": "user", "content": "deep" * 10}] * 3000)):  # fmt: skip
            with tracer.start_as_current_span("chat") as span:
                genai(span, *requests()[0])
                span.set_attribute("gen_ai.input.messages", messages)
        run_agent(tracer, genai)

    whole = as_json(b"".join(exports(run)))
    spans = whole["resourceSpans"][0]["scopeSpans"][0]["spans"]
    spans += [7, {"attributes": 7}, {**spans[-1], "name": "again"}]
    count, message = rejected(post(json.dumps(whole).encode()))
    assert count >= 5
    assert "nul_character" in message
    assert any(plain(each.messages) == chat_messages() for each in stored(services))
