"""Spans of an agent's run as instrumentations write them, made by the real SDK: one run, in every convention."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, Tracer

from tests.trajectory_samples import LOOKUP

Message = dict[str, Any]
SYSTEM = {"role": "system", "content": "Help."}
CALLS = [
    {"id": "c1", "name": "lookup", "arguments": {"order": "7"}},
    {"id": "c2", "name": "lookup", "arguments": {"order": "8"}},
]


def requests(question: str = "Where are 7 and 8?") -> list[tuple[list[Message], Message]]:
    """(messages, answer) of each call of one run: two parallel calls of a tool, an answer, and one more question."""
    asked = [SYSTEM, {"role": "user", "content": question}]
    called = {"role": "assistant", "content": None, "calls": CALLS}
    results = [{"role": "tool", "id": "c1", "content": "shipped"}, {"role": "tool", "id": "c2", "content": "lost"}]
    told = {"role": "assistant", "content": "7 is shipped, 8 is lost."}
    thanks = {"role": "user", "content": "Thanks"}
    return [
        (asked, called),
        ([*asked, called, *results], told),
        ([*asked, called, *results, told, thanks], {"role": "assistant", "content": "Welcome."}),
    ]


def chat_messages(question: str = "Where are 7 and 8?") -> list[Message]:
    """What the run is in the format `chat`."""
    messages, answer = requests(question)[-1]
    return [_chat(message) for message in [*messages, answer]]


def _chat(message: Message) -> Message:
    if message["role"] == "tool":
        return {"role": "tool", "tool_call_id": message["id"], "content": message["content"]}
    calls = [
        {"id": each["id"], "type": "function", "function": {**each, "arguments": json.dumps(each["arguments"])}}
        for each in message.get("calls", ())
    ]
    for each in calls:
        del each["function"]["id"]
    return {"role": message["role"], "content": message["content"], **({"tool_calls": calls} if calls else {})}


# Conventions: each writes one call into its span.


def _parts(message: Message) -> Message:
    if message["role"] == "tool":
        part = {"type": "tool_call_response", "id": message["id"], "response": message["content"]}
        return {"role": "tool", "parts": [part]}
    parts: list[Message] = [{"type": "text", "content": message["content"]}] if message["content"] else []
    return {
        "role": message["role"],
        "parts": parts + [{"type": "tool_call", **call} for call in message.get("calls", ())],
    }


def genai(span: Span, messages: list[Message], answer: Message) -> None:
    span.set_attribute("gen_ai.operation.name", "chat")
    span.set_attribute("gen_ai.system_instructions", json.dumps(_parts(messages[0])["parts"]))
    span.set_attribute("gen_ai.input.messages", json.dumps([_parts(each) for each in messages[1:]]))
    span.set_attribute("gen_ai.output.messages", json.dumps([{**_parts(answer), "finish_reason": "stop"}]))
    span.set_attribute("gen_ai.tool.definitions", json.dumps([{"type": "function", **LOOKUP["function"]}]))


def genai_event(span: Span, messages: list[Message], answer: Message) -> None:
    span.set_attribute("gen_ai.operation.name", "chat")
    span.add_event(
        "gen_ai.client.inference.operation.details",
        {
            "gen_ai.input.messages": json.dumps([_parts(each) for each in messages]),
            "gen_ai.output.messages": json.dumps([_parts(answer)]),
            "gen_ai.tool.definitions": json.dumps([LOOKUP]),
        },
    )


def traceloop(span: Span, messages: list[Message], answer: Message) -> None:
    span.set_attribute("llm.request.type", "chat")
    placed = [(f"gen_ai.prompt.{n}", each) for n, each in enumerate(messages)] + [("gen_ai.completion.0", answer)]
    for prefix, message in placed:
        span.set_attribute(f"{prefix}.role", message["role"])
        if message["content"]:
            span.set_attribute(f"{prefix}.content", message["content"])
        if message["role"] == "tool":
            span.set_attribute(f"{prefix}.tool_call_id", message["id"])
        for n, call in enumerate(message.get("calls", ())):
            span.set_attribute(f"{prefix}.tool_calls.{n}.id", call["id"])
            span.set_attribute(f"{prefix}.tool_calls.{n}.name", call["name"])
            span.set_attribute(f"{prefix}.tool_calls.{n}.arguments", json.dumps(call["arguments"]))
    function: Any = LOOKUP["function"]
    span.set_attribute("llm.request.functions.0.name", function["name"])
    span.set_attribute("llm.request.functions.0.description", function["description"])
    span.set_attribute("llm.request.functions.0.parameters", json.dumps(function["parameters"]))


def openinference(span: Span, messages: list[Message], answer: Message) -> None:
    span.set_attribute("openinference.span.kind", "LLM")
    placed = [(f"llm.input_messages.{n}", each) for n, each in enumerate(messages)] + [
        ("llm.output_messages.0", answer)
    ]
    for prefix, message in placed:
        span.set_attribute(f"{prefix}.message.role", message["role"])
        if message["role"] == "user":  # as instrumentations write texts that came in parts
            span.set_attribute(f"{prefix}.message.contents.0.message_content.type", "text")
            span.set_attribute(f"{prefix}.message.contents.0.message_content.text", message["content"])
        elif message["content"]:
            span.set_attribute(f"{prefix}.message.content", message["content"])
        if message["role"] == "tool":
            span.set_attribute(f"{prefix}.message.tool_call_id", message["id"])
        for n, call in enumerate(message.get("calls", ())):
            inner = f"{prefix}.message.tool_calls.{n}.tool_call"
            span.set_attribute(f"{inner}.id", call["id"])
            span.set_attribute(f"{inner}.function.name", call["name"])
            span.set_attribute(f"{inner}.function.arguments", json.dumps(call["arguments"]))
    span.set_attribute("llm.tools.0.tool.json_schema", json.dumps(LOOKUP))


def _openai(message: Message) -> Message:
    calls = [
        {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
        for call in message.get("calls", ())
    ]
    return {key: value for key, value in {**message, "calls": None, "tool_calls": calls or None}.items() if value}


def events(span: Span, messages: list[Message], answer: Message) -> None:
    """As Azure's SDK writes the events of 1.28 to 1.36: the body as JSON in one attribute."""
    span.set_attribute("gen_ai.operation.name", "chat")
    for message in messages:
        body = _openai(message)
        span.add_event(f"gen_ai.{body.pop('role')}.message", {"gen_ai.event.content": json.dumps(body)})
    choice = {"index": 0, "finish_reason": "stop", "message": _openai(answer)}
    span.add_event("gen_ai.choice", {"gen_ai.event.content": json.dumps(choice)})
    span.set_attribute("gen_ai.tool.definitions", json.dumps([LOOKUP]))


def logfire(span: Span, messages: list[Message], answer: Message) -> None:
    """As Pydantic AI writes them: all events in one attribute."""
    span.set_attribute("gen_ai.operation.name", "chat")
    listed = [{"event.name": f"gen_ai.{each['role']}.message", **_openai(each)} for each in messages]
    listed.append({"event.name": "gen_ai.choice", "index": 0, "message": _openai(answer)})
    span.set_attribute("events", json.dumps(listed))
    span.set_attribute("gen_ai.tool.definitions", json.dumps([LOOKUP]))


def whole_events(span: Span, messages: list[Message], answer: Message) -> None:
    """Before 1.28."""
    span.set_attribute("gen_ai.operation.name", "chat")
    span.add_event("gen_ai.content.prompt", {"gen_ai.prompt": json.dumps([_openai(each) for each in messages])})
    span.add_event("gen_ai.content.completion", {"gen_ai.completion": json.dumps([_openai(answer)])})
    span.set_attribute("gen_ai.tool.definitions", json.dumps([LOOKUP]))


def ai_sdk(span: Span, messages: list[Message], answer: Message) -> None:
    span.set_attribute("ai.operationId", "ai.streamText.doStream")
    span.set_attribute("ai.prompt.messages", json.dumps([_ai_sdk_message(each) for each in messages]))
    calls = [_ai_sdk_call(call) for call in answer.get("calls", ())]
    if calls:
        span.set_attribute("ai.response.toolCalls", json.dumps(calls))
    span.set_attribute("ai.response.text", answer["content"] or "")
    function: Any = LOOKUP["function"]
    tool = {"type": "function", **function, "inputSchema": function["parameters"], "parameters": None}
    span.set_attribute("ai.prompt.tools", [json.dumps({k: v for k, v in tool.items() if v is not None})])


def _ai_sdk_call(call: Message) -> Message:
    return {"type": "tool-call", "toolCallId": call["id"], "toolName": call["name"], "input": call["arguments"]}


def _ai_sdk_message(message: Message) -> Message:
    if message["role"] == "tool":
        output = {"type": "text", "value": message["content"]}
        return {"role": "tool", "content": [{"type": "tool-result", "toolCallId": message["id"], "output": output}]}
    if message["role"] == "system":
        return message
    text = [{"type": "text", "text": message["content"]}] if message["content"] else []
    return {"role": message["role"], "content": text + [_ai_sdk_call(call) for call in message.get("calls", ())]}


Write = Callable[[Span, list[Message], Message], None]
CONVENTIONS: dict[str, Write] = {
    write.__name__: write
    for write in (genai, genai_event, traceloop, openinference, events, logfire, whole_events, ai_sdk)
}


# Exports


class Kept(SpanExporter):
    def __init__(self) -> None:
        self.batches: list[Sequence[ReadableSpan]] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.batches.append(spans)
        return SpanExportResult.SUCCESS


def run_agent(tracer: Tracer, write: Write, question: str = "Where are 7 and 8?", **attributes: Any) -> None:
    """A run with a span for the agent, one for each call and one for a tool."""
    with tracer.start_as_current_span("invoke_agent bot") as agent:
        agent.set_attribute("gen_ai.operation.name", "invoke_agent")
        agent.set_attributes(attributes)
        for messages, answer in requests(question):
            with tracer.start_as_current_span("chat gpt") as span:
                span.set_attribute("gen_ai.response.model", "gpt-5")
                write(span, messages, answer)
            with tracer.start_as_current_span("execute_tool lookup") as tool:
                tool.set_attribute("gen_ai.operation.name", "execute_tool")


def exports(run: Callable[[Tracer], None], **resource: Any) -> list[bytes]:
    """The protobuf of each export, of one span each."""
    kept = Kept()
    provider = TracerProvider(resource=Resource(resource))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    run(provider.get_tracer("tests"))
    provider.shutdown()
    return [encode_spans(batch).SerializeToString() for batch in kept.batches]


def as_json(export: bytes) -> dict[str, Any]:
    """An export in OTLP's JSON, where ids are hex digits rather than base64."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    found = MessageToDict(ExportTraceServiceRequest.FromString(export), use_integers_for_enums=True)
    for of_resource in found["resourceSpans"]:
        for of_scope in of_resource["scopeSpans"]:
            for span in of_scope["spans"]:
                for name in {"traceId", "spanId", "parentSpanId"} & set(span):
                    span[name] = base64.b64decode(span[name]).hex()
    return found
