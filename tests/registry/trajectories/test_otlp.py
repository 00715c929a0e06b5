"""Format `otlp`: runs put together out of spans of the real SDK, in every convention and both encodings."""

import gzip
import json
import math
import random
import struct
import time
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import Span, Status, StatusCode, Tracer

from registry.errors import InvalidTrajectory
from registry.trajectories.draft import Draft, Sent
from registry.trajectories.files import SizeLimits
from tests.otlp_samples import (
    CONVENTIONS,
    SYSTEM,
    Message,
    as_json,
    chat_messages,
    exports,
    genai,
    requests,
    run_agent,
)
from tests.trajectory_samples import LOOKUP, drafts, read_file

EXPORTS = exports(partial(run_agent, write=genai))


def jsonl(found: list[bytes]) -> bytes:
    return b"\n".join(json.dumps(as_json(each)).encode() for each in found)


def codes(found: list[Sent]) -> list[str]:
    return [sent.code for _, sent in found if isinstance(sent, InvalidTrajectory)]


def read_calls(*calls: tuple[list[Message], Message], **attributes: Any) -> list[Draft]:
    """The trajectories of these calls, each in a trace of its own."""

    def run(tracer: Tracer) -> None:
        for messages, answer in calls:
            with tracer.start_as_current_span("chat") as span:
                span.set_attributes(attributes)
                genai(span, messages, answer)

    return drafts(read_file(jsonl(exports(run)), "otlp"))


def weights(draft: Draft) -> list[int]:
    return [message.get("weight", 1) for message in draft.messages if message["role"] == "assistant"]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_run_in_any_convention_becomes_the_same_trajectory(convention: str) -> None:
    found = exports(partial(run_agent, write=CONVENTIONS[convention]), **{"service.name": "shop"})
    assert len(found) == 7
    [draft] = drafts(read_file(jsonl(found), "otlp"))
    assert draft.messages == chat_messages()
    assert draft.tools == [LOOKUP]
    trace = as_json(found[0])["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"]
    assert draft.trajectory_id == trace
    assert draft.metadata == {"otlp": {"traces": [trace], "model": "gpt-5", "service": "shop"}}


def _framed(found: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(each)) + each for each in found)


@pytest.mark.parametrize("size", [1, 5, 100_000])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    "write",
    [
        pytest.param(jsonl, id="JSONL, as the collector's file exporter"),
        pytest.param(lambda found: json.dumps([as_json(each) for each in found]).encode(), id="a JSON list"),
        pytest.param(lambda found: b"".join(json.dumps(as_json(e), indent=1).encode() for e in found), id="documents"),
        pytest.param(b"".join, id="protobuf, one message behind the other"),
        pytest.param(_framed, id="protobuf with lengths, as the collector's file exporter"),
    ],
)  # fmt: skip
def test_every_encoding_of_a_file_is_read(write: Any, packed: bool, size: int) -> None:
    data = write(EXPORTS)
    [draft] = drafts(read_file(gzip.compress(data) if packed else data, "otlp", size=size))
    assert draft.messages == chat_messages()


def test_spans_may_come_in_any_order_and_twice() -> None:
    for seed in range(10):
        mixed = EXPORTS * 2
        random.Random(seed).shuffle(mixed)
        [draft] = drafts(read_file(jsonl(mixed), "otlp"))
        assert draft.messages == chat_messages()


def test_one_export_of_everything_equals_one_a_span() -> None:
    whole = ExportTraceServiceRequest()
    for each in EXPORTS:
        whole.MergeFromString(each)
    [draft] = drafts(read_file(whole.SerializeToString(), "otlp"))
    assert draft.messages == chat_messages()


def test_conversations_are_kept_apart_and_named() -> None:
    def run(tracer: Tracer) -> None:
        run_agent(tracer, genai, "One?", **{"gen_ai.conversation.id": "s-1", "memgen.reward": 0.5})
        run_agent(tracer, genai, "Two?", **{"session.id": "s-2", "memgen.success": True, "memgen.task": "shop"})

    one, two = drafts(read_file(jsonl(exports(run)), "otlp"))
    assert (one.session_id, one.reward, one.success, one.task) == ("s-1", 0.5, None, None)
    assert (two.session_id, two.reward, two.success, two.task) == ("s-2", None, True, "shop")
    assert one.messages == chat_messages("One?")


def test_calls_without_a_root_are_joined_by_their_messages() -> None:
    [draft] = read_calls(*requests())
    assert draft.messages == chat_messages()
    assert len(draft.metadata["otlp"]["traces"]) == 3


def test_branches_retries_and_edits_are_runs_of_their_own() -> None:
    first, second, _ = requests()
    other = ([*second[0]], {"role": "assistant", "content": "Both are lost."})
    one, two = read_calls(first, second, other)
    assert (weights(one), weights(two)) == ([1, 1], [0, 1]), "what both begin with is learned from once"
    edited = [
        {**message, "content": "Never mind."} if message["content"] == "shipped" else message for message in second[0]
    ]
    one, two = read_calls(first, second, (edited, second[1]))
    assert (weights(one), weights(two)) == ([1, 1], [0, 1])
    foreign = [SYSTEM, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Said by another."}]
    [draft] = read_calls(([*foreign, {"role": "user", "content": "And?"}], {"role": "assistant", "content": "So."}))
    assert weights(draft) == [0, 1]


def test_several_choices_are_a_trajectory_each() -> None:
    def run(tracer: Tracer) -> None:
        with tracer.start_as_current_span("chat") as span:
            genai(span, requests()[0][0], {"role": "assistant", "content": "one"})
            outputs = [{"role": "assistant", "parts": [{"type": "text", "content": text}]} for text in ("one", "two")]
            span.set_attribute("gen_ai.output.messages", json.dumps(outputs))
            if choices:
                span.set_attribute("gen_ai.request.choice.count", 2)

    choices = True
    assert [d.messages[-1]["content"] for d in drafts(read_file(jsonl(exports(run)), "otlp"))] == ["one", "two"]
    choices = False  # else they are pieces of one answer
    [draft] = drafts(read_file(jsonl(exports(run)), "otlp"))
    assert [part["text"] for part in draft.messages[-1]["content"]] == ["one", "two"]


@pytest.mark.parametrize("answered", ["c1", None, ["c1"]], ids=str)
def test_an_answer_in_pieces_is_one_turn_and_results_of_unknown_ids_are_in_order(answered: object) -> None:
    """Instrumentations of OpenAI's responses write each item as a message; OpenLLMetry names the call by its item."""
    messages = [
        {"role": "user", "content": "Where is 7?"},
        {"role": "assistant", "content": "I look."},
        {"role": "assistant", "tool_calls": [{"id": "fc_1", "name": "lookup", "arguments": {"order": "7"}}]},
        {"role": "tool", "tool_call_id": answered, "content": "shipped"},
    ]

    def run(tracer: Tracer) -> None:
        with tracer.start_as_current_span("chat") as span:
            span.set_attribute("gen_ai.operation.name", "chat")
            span.set_attribute("gen_ai.input.messages", json.dumps(messages))
            span.set_attribute("gen_ai.output.messages", json.dumps([{"role": "assistant", "content": "Shipped."}]))
            parameters = {"function_tools": [{"name": "lookup", "parameters_json_schema": {"type": "object"}}]}
            span.set_attribute("model_request_parameters", json.dumps(parameters))

    [draft] = drafts(read_file(jsonl(exports(run)), "otlp"))
    assert [(m["role"], m["content"], m.get("tool_call_id")) for m in draft.messages] == [
        ("user", "Where is 7?", None), ("assistant", "I look.", None), ("tool", "shipped", "fc_1"),
        ("assistant", "Shipped.", None),
    ]  # fmt: skip
    function = {"name": "lookup", "parameters": {"type": "object"}}
    assert draft.tools == [{"type": "function", "function": function}], "as Pydantic AI declared them"


def test_log_records_give_their_spans_the_messages() -> None:
    """opentelemetry-instrumentation-openai-v2 writes messages as log records that name the span."""

    def bare(span: Span, *_: object) -> None:
        span.set_attribute("gen_ai.operation.name", "chat")

    export = as_json(exports(partial(run_agent, write=bare))[0])
    [span] = export["resourceSpans"][0]["scopeSpans"][0]["spans"]

    def record(name: str, **body: Any) -> Message:
        fields = [{"key": key, "value": {"stringValue": value}} for key, value in body.items()]
        named = {name: span[name] for name in ("traceId", "spanId")}
        return {**named, "eventName": name, "body": {"kvlistValue": {"values": fields}}}

    records = [record("gen_ai.user.message", content="Hi"), record("gen_ai.choice", message="Hello.")]
    one, other = ({"resourceLogs": [{"scopeLogs": [{"logRecords": [each]}]}]} for each in records)
    both = {"resourceLogs": [*one["resourceLogs"], *other["resourceLogs"]]}
    # Collectors write them on lines of their own, before and behind their spans, and again what was not acknowledged.
    for lines in (
        [{**export, **both}],
        [both, export],
        [export, both],
        [one, export, other],
        [one, export, one, other, export, other],
    ):
        found = read_file("\n".join(map(json.dumps, lines)).encode(), "otlp")
        assert codes(found) == []
        [draft] = drafts(found)
        assert [message["content"] for message in draft.messages] == ["Hi", "Hello."]


@pytest.mark.parametrize(
    ("reason", "learned"), [("FinishReason.STOP", ["Hi", "Hello."]), ("FinishReason.LENGTH", "nothing_to_learn")]
)
def test_semantic_kernel_s_calls_and_records_are_read(reason: str, learned: object) -> None:
    """It has its own names for operations, and writes a record's body as a JSON text."""

    def bare(span: Span, *_: object) -> None:
        span.set_attribute("gen_ai.operation.name", "chat.streaming_completions")
        span.set_attribute("gen_ai.response.finish_reason", reason)

    def record(name: str, body: object) -> Message:
        named = {"key": "event.name", "value": {"stringValue": name}}
        ids = {name: span[name] for name in ("traceId", "spanId")}
        return {**ids, "attributes": [named], "body": {"stringValue": json.dumps(body)}}

    export = as_json(exports(partial(run_agent, write=bare))[0])
    [span] = export["resourceSpans"][0]["scopeSpans"][0]["spans"]
    records = [
        record("gen_ai.user.message", {"role": "user", "content": "Hi"}),
        record("gen_ai.choice", {"index": 0, "message": {"role": "assistant", "content": "Hello."}}),
    ]
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}
    [(_, sent)] = read_file(f"{json.dumps(logs)}\n{json.dumps(export)}".encode(), "otlp")
    told = [message["content"] for message in sent.messages] if isinstance(sent, Draft) else sent.code
    assert told == learned


def test_what_says_nothing_is_left_out_and_what_is_not_captured_is_refused() -> None:
    def run(tracer: Tracer) -> None:
        with tracer.start_as_current_span("GET /"):
            pass
        with tracer.start_as_current_span("chat") as span:
            span.set_attribute("gen_ai.operation.name", "chat")
            span.set_attribute("gen_ai.input.messages", '[{"role": "user", "parts": []}]')
            span.set_status(Status(StatusCode.ERROR))
        with tracer.start_as_current_span("embeddings") as span:
            span.set_attribute("gen_ai.operation.name", "embeddings")

    assert codes(read_file(jsonl(exports(run)), "otlp")) == []

    def uncaptured(tracer: Tracer) -> None:
        run_agent(tracer, lambda span, *_: span.set_attribute("gen_ai.operation.name", "chat"))

    found = read_file(jsonl(exports(uncaptured)), "otlp")
    assert codes(found) == ["otlp_no_content"] * 3
    assert "CAPTURE_MESSAGE_CONTENT" in str(found[0][1])

    def nothing(tracer: Tracer) -> None:
        with tracer.start_as_current_span("GET /"):
            pass

    assert codes(read_file(jsonl(exports(nothing)), "otlp")) == ["otlp_no_calls"]
    assert read_file(b"", "otlp") == []


@pytest.mark.parametrize("reason", [None, "length", "MAX_TOKENS", "content_filter"])
def test_an_answer_that_is_not_whole_is_not_learned_from(reason: str | None) -> None:
    """It failed with a part of an answer, or it says itself that it was cut off."""
    first, second, _ = requests()

    def run(tracer: Tracer) -> None:
        for number, (messages, answer) in enumerate((first, second)):
            with tracer.start_as_current_span("chat") as span:
                genai(span, messages, answer)
                if number == 1:
                    output = {"role": "assistant", "content": "7 is sh"} | ({"finish_reason": reason} if reason else {})
                    span.set_attribute("gen_ai.output.messages", json.dumps([output]))
                    span.set_status(Status(StatusCode.UNSET if reason else StatusCode.ERROR))

    found = drafts(read_file(jsonl(exports(run)), "otlp"))
    assert [weights(draft) for draft in found] == [[1, 0] if reason else [1]]


def test_an_answer_is_learned_from_though_its_span_failed_later() -> None:
    def run(tracer: Tracer) -> None:
        with tracer.start_as_current_span("chat") as span:
            genai(span, *requests()[0])
            span.set_status(Status(StatusCode.ERROR))

    [draft] = drafts(read_file(jsonl(exports(run)), "otlp"))
    assert weights(draft) == [1]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (2, 0, 1), (1, 2, 0)], ids=str)
def test_what_a_trace_says_of_itself_counts_in_whatever_order_it_comes(order: tuple[int, ...]) -> None:
    """A turn of the conversation is a trace of its own; some tools list the newest first."""

    def run(tracer: Tracer) -> None:
        for number, (messages, answer) in enumerate(requests()):
            with tracer.start_as_current_span("chat") as span:
                genai(span, messages, answer)
                if number == 0:
                    span.set_attributes({"memgen.reward": 0.5, "memgen.task": "shop"})

    turns = exports(run)
    [draft] = drafts(read_file(jsonl([turns[place] for place in order]), "otlp"))
    traces = [as_json(each)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"] for each in turns]
    assert draft.messages == chat_messages()
    assert draft.metadata["otlp"]["traces"] == traces
    assert (draft.trajectory_id, draft.reward, draft.task) == (traces[0], 0.5, "shop")


def test_a_text_that_is_a_number_stays_a_text() -> None:
    """Where prompts and answers are plain texts, as exporters wrote them once."""

    def in_events(span: Span) -> None:
        span.add_event("gen_ai.user.message", {"content": "6 * 7?"})
        span.add_event("gen_ai.choice", {"message": "42"})

    def in_attributes(span: Span) -> None:
        span.set_attributes({"gen_ai.prompt": "6 * 7?", "gen_ai.completion": "42"})

    for write in (in_events, in_attributes):

        def run(tracer: Tracer, write: Any = write) -> None:
            with tracer.start_as_current_span("chat") as span:
                span.set_attribute("gen_ai.operation.name", "chat")
                write(span)

        [draft] = drafts(read_file(jsonl(exports(run)), "otlp"))
        assert [message["content"] for message in draft.messages] == ["6 * 7?", "42"]


def test_a_version_that_answered_is_named() -> None:
    [draft] = read_calls(requests()[0], **{"gen_ai.response.model": "support-bot@7"})
    assert draft.adapter_version == "support-bot@7"


def test_a_bad_span_never_takes_the_good_ones_with_it() -> None:
    good = as_json(EXPORTS[0])
    bad: list[Any] = [
        7, None, "x", [], {}, {"attributes": 7}, {"attributes": [7, {"key": 7}, {"key": "gen_ai.operation.name"}]},
        {"attributes": {"gen_ai.operation.name": "chat"}}, {"events": [7], "status": 7, "traceId": 7},
    ]  # fmt: skip
    spans = bad + good["resourceSpans"][0]["scopeSpans"][0]["spans"]
    export = {"resourceSpans": [7, {}, {"scopeSpans": 7}, {"scopeSpans": [7, {"spans": 7}, {"spans": spans}]}]}
    found = read_file(json.dumps(export).encode() + b"\n{\n" + jsonl(EXPORTS), "otlp")
    assert [sent.messages for _, sent in found if isinstance(sent, Draft)] == [chat_messages()]
    assert set(codes(found)) == {"otlp_invalid", "invalid_json"}


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("not json", "message_not_object"),
        ("{}", "otlp_no_content"),
        ("[7]", "message_not_object"),
        ('[{"role": "alien"}]', "role_unknown"),
        ('[{"role": ["user"]}]', "role_unknown"),
        ('[{"role": "user", "parts": [{"type": "blob", "content": "x"}]}]', "content_part"),
        ('[{"role": "user", "parts": [{"type": ["text"]}]}]', "content_part"),
        ('[{"role": "user", "parts": [{"type": "text", "content": 7}]}]', "content_type"),
        ('[{"role": "user", "parts": 7}]', "content_type"),
        ('[{"role": "user", "content": "a\\u0000b"}]', "nul_character"),
        ('[{"role": "user", "content": "\\ud83d"}]', "lone_surrogate"),
        ('[{"role": "tool", "content": "x", "tool_call_id": "none"}]', "tool_call_unmatched"),
        ("[" * 100_000, "message_not_object"),
    ],
)
def test_hostile_messages_have_a_code(value: str, code: str) -> None:
    def run(tracer: Tracer) -> None:
        with tracer.start_as_current_span("chat") as span:
            genai(span, *requests()[0])
            span.set_attribute("gen_ai.input.messages", value)

    assert codes(read_file(jsonl(exports(run)), "otlp")) == [code]


KEYS = [
    *("role", "parts", "content", "type", "tool_calls", "id", "name", "arguments", "text", "function"),
    *("stringValue", "arrayValue", "kvlistValue", "values", "key", "value", "intValue"),
]
any_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=15,
)
names = st.sampled_from(
    ["gen_ai.operation.name", "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.prompt.0.role",
     "gen_ai.prompt.0.content", "gen_ai.prompt.0.tool_calls.0.name", "gen_ai.prompt.1", "gen_ai.completion.0.content",
     "gen_ai.completion.99999999999", "llm.input_messages.0.message.role", "llm.input_messages.0.message.contents",
     "llm.output_messages.0.message.tool_calls.0.tool_call", "llm.tools.0.tool.json_schema", "events", "session.id",
     "ai.prompt.messages", "ai.response.toolCalls", "ai.prompt.tools", "gen_ai.tool.definitions", "memgen.reward",
     "memgen.task", "gen_ai.system_instructions", "gen_ai.request.choice.count", "gen_ai.response.finish_reasons",
     "openinference.span.kind", "llm.request.type", "ai.operationId", "gen_ai.conversation.id"]
)  # fmt: skip
attributes = st.lists(st.tuples(names, any_value | any_value.map(json.dumps)), max_size=8)


event_names = st.text(max_size=4) | st.sampled_from(["gen_ai.choice", "gen_ai.user.message"])


@settings(max_examples=150, deadline=None)
@given(attributes, st.lists(st.tuples(event_names, attributes), max_size=2))
def test_any_attributes_are_read_or_refused(own: Any, events: Any) -> None:
    def listed(found: Any) -> list[Any]:
        return [{"key": key, "value": value if isinstance(value, dict) else _any(value)} for key, value in found]

    attributes = [{"key": "llm.request.type", "value": {"stringValue": "chat"}}, *listed(own)]
    told = [{"name": name, "attributes": listed(found)} for name, found in events]
    span = {"traceId": "aa", "spanId": "bb", "attributes": attributes, "events": told}
    data = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    found = read_file(jsonl(EXPORTS) + b"\n" + data.encode(), "otlp")
    assert chat_messages() in [sent.messages for _, sent in found if isinstance(sent, Draft)]


def _any(value: Any) -> Any:
    if isinstance(value, str):
        return {"stringValue": value}
    return {"arrayValue": {"values": [_any(each) for each in value]}} if isinstance(value, list) else value


cut_exports = st.builds(lambda kept, more: EXPORTS[0][:kept] + more, st.integers(0, 900), st.binary(max_size=20))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | cut_exports, st.sampled_from([1, 7, 1000]))
def test_any_bytes_are_read_or_refused(data: bytes, size: int) -> None:
    read_file(b"\n" + data, "otlp", size=size)
    read_file(b"\0" + data, "otlp", size=size)


def test_numbers_that_are_none_in_protobuf() -> None:
    request = ExportTraceServiceRequest.FromString(EXPORTS[0])
    span = request.resource_spans[0].scope_spans[0].spans[0]
    nan = span.attributes.add()
    nan.key, nan.value.double_value = "memgen.reward", math.nan
    found = read_file(request.SerializeToString(), "otlp")
    assert codes(found) == ["reward_invalid"]


def test_time_and_memory_are_linear() -> None:
    """A long run whose every call repeats it, and spans of many small attributes."""
    history: list[Message] = [SYSTEM]
    calls = []
    for turn in range(80):
        history = [*history, {"role": "user", "content": f"question {turn} " * 10}]
        answer = {"role": "assistant", "content": f"answer {turn} " * 10}
        calls.append((history, answer))
        history = [*history, answer]
    [draft] = read_calls(*calls)
    assert weights(draft) == [1] * 80
    pairs = [{"key": f"gen_ai.prompt.{n}.role", "value": {"stringValue": "user"}} for n in range(20_000)]
    pairs += [{"key": "gen_ai.prompt" + ".a" * 50_000, "value": {"stringValue": "user"}}]
    span = {"attributes": [{"key": "llm.request.type", "value": {"stringValue": "chat"}}, *pairs]}
    began = time.monotonic()
    read_file(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode(), "otlp")
    assert time.monotonic() - began < 5


def test_a_run_longer_than_a_trajectory_may_be_is_refused_alone() -> None:
    messages, answer = requests()[0]
    long = [messages[0], {"role": "user", "content": "x" * 5000}]

    def run(tracer: Tracer) -> None:
        for asked in (messages, long):
            with tracer.start_as_current_span("chat") as span:
                genai(span, asked, answer)

    found = read_file(jsonl(exports(run)), "otlp", limits=SizeLimits(4000, 100_000))
    assert codes(found) == ["trajectory_too_long"]
    assert len(found) == 2
