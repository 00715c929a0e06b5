"""Format `otlp`: spans of agents as OpenTelemetry exports them, in JSON or protobuf. Pure; knows no row.

A conversation is spread over many spans, and these over many lines of a file: each call of a model repeats what was
said before. They are joined, and a trajectory comes out at the end of the file.
"""

from collections.abc import Iterable, Iterator

from registry.errors import InvalidTrajectory
from registry.json_text import parse_json
from registry.models import JsonObject
from registry.trajectories.documents import JsonSplitter
from registry.trajectories.draft import Sent
from registry.trajectories.formats.mapping import DROPPED, Mapped, named
from registry.trajectories.formats.otlp_spans.calls import (
    CONVERSATIONS,
    MODELS,
    OWN_ATTRIBUTES,
    is_model_call,
    read_calls,
)
from registry.trajectories.formats.otlp_spans.logs import SpanLogs, once
from registry.trajectories.formats.otlp_spans.runs import RunJoiner, in_order
from registry.trajectories.formats.otlp_spans.spans import Span, read_json, read_protobuf
from registry.trajectories.formats.otlp_spans.split import ProtobufSplitter, looks_like_json
from registry.trajectories.jsonl import JsonLine

SCHEMA: JsonObject = {
    "type": "object",
    "description": "An OTLP export of spans with the GenAI conventions. Calls of one conversation are joined.",
    "properties": {
        "resourceSpans": {"type": "array", "items": {"type": "object"}},
        "resourceLogs": {"type": "array", "items": {"type": "object"}},
    },
}
MAPPING = (
    Mapped(
        "spans of a model's call: `gen_ai.operation.name` or `llm.request.type` chat, completion, text_completion, "
        "generate_content, and Semantic Kernel's chat.completions, ...; `openinference.span.kind` LLM; "
        "`ai.operationId` ...doGenerate, ...doStream",
        "a request and its answer",
        "joined to trajectories by their messages",
    ),
    Mapped("other spans (agents, tools, HTTP, ...)", DROPPED, "what tools returned stands in the next call's messages"),
    Mapped("calls that failed", DROPPED, "unless they have an answer, and say how it ended"),
    Mapped("calls without messages", "refused", "`otlp_no_content`: content is captured only where it is asked for"),
    Mapped(
        "`gen_ai.input.messages`, `gen_ai.output.messages`, `gen_ai.system_instructions`, `gen_ai.tool.definitions`",
        "`messages`, `tools`",
        "since 1.37; of the span, or of the event `gen_ai.client.inference.operation.details`; structured or JSON text",
    ),
    Mapped(
        "events `gen_ai.system.message`, `.user.message`, `.assistant.message`, `.tool.message`, `gen_ai.choice`",
        "`messages`",
        "1.28 to 1.36; span events, log records in JSON anywhere in the file, and the attribute `events` of Logfire",
    ),
    Mapped(
        "events or attributes `gen_ai.prompt`, `gen_ai.completion` with JSON",
        "`messages`",
        "before 1.28: `gen_ai.content.prompt`, `gen_ai.content.completion`",
    ),
    Mapped(
        "`gen_ai.prompt.0.role`, `.content`, `.tool_calls.0.name`, ..., `gen_ai.completion.0...`",
        "`messages`",
        "OpenLLMetry (Traceloop); its tools are `llm.request.functions.0...` or `gen_ai.tool.definitions`",
    ),
    Mapped(
        "`llm.input_messages.0.message...`, `llm.output_messages.0...`, `llm.tools.0.tool.json_schema`",
        "`messages`, `tools`",
        "OpenInference (Arize Phoenix)",
    ),
    Mapped(
        "`ai.prompt.messages`, `ai.response.text`, `ai.response.toolCalls`, `ai.prompt.tools`",
        "`messages`, `tools`",
        "Vercel's AI SDK",
    ),
    Mapped(
        "parts of type text, tool_call, tool_call_response, reasoning",
        "content, `tool_calls`, tool messages, `reasoning_content`",
        "also tool_use and tool_result, tool-call and tool-result, toolUse and toolResult",
    ),
    Mapped("results of ids that no open call has", "tool message of the first open call", "where there is one"),
    Mapped("parts of tools that the provider runs, redacted thoughts", DROPPED),
    Mapped("parts of type blob, file, uri, image", "refused", "`content_part`: only text is read"),
    Mapped("several choices of one call", "a trajectory each", "16 at most"),
    Mapped("assistant turns that no span answered", "`weight` 0", "history from elsewhere, or edited"),
    Mapped(
        "answers cut off: `finish_reason` length, max_tokens, content_filter, error, ...",
        "`weight` 0",
        "in whatever words the provider says so",
    ),
    Mapped(
        "a request that goes on from an earlier point",
        "a trajectory of its own",
        "in which the turns that another one has have `weight` 0",
    ),
    Mapped(
        named(CONVERSATIONS),
        "`session_id`",
        "of any span of the trace; without one, calls are joined by their messages alone",
    ),
    Mapped("trace id", "`trajectory_id`", "of the first call; all are in `metadata.otlp.traces`"),
    Mapped(
        named(MODELS),
        "`metadata.otlp.model`",
        "a model `bot@7` is also `adapter_version`",
    ),
    Mapped("`service.name`", "`metadata.otlp.service`"),
    Mapped(
        named(f"memgen.{name}" for name in OWN_ATTRIBUTES),
        "the same",
        "of the resource or of any span of the trace",
    ),
    Mapped("token counts, times, other attributes, links, metrics", DROPPED),
)

_MOST_BARE = 100_000
"""Calls that wait for their messages at most; beyond, they are read with what has come."""


class OtlpReading:
    """The reading of one file or request. Collectors write log records on other lines than the spans that they name, so
    that a call without messages waits for them until the end."""

    def __init__(self) -> None:
        self._joiner = RunJoiner()
        self._logs = SpanLogs()
        self._bare: list[tuple[int, Span]] = []
        """Calls without their messages, each with its line or document."""
        self._values = self._calls = 0

    def read(self, number: int, value: object) -> Iterator[Sent]:
        yield from self._take(number, value if isinstance(value, Iterator) else read_json(value))

    def finish(self) -> Iterable[Sent]:
        if self._values and not self._calls:
            yield 1, InvalidTrajectory("otlp_no_calls", "no span is a call of a model; docs/formats.md lists them")
        yield from self._settle()
        yield from self._joiner.finish()

    def _take(self, number: int, found: Iterable[Span | InvalidTrajectory]) -> Iterator[Sent]:
        spans: list[Span] = []
        logs: list[Span] = []
        # One by one: most spans say nothing, and take much more memory than as they are written.
        for each in found:
            if isinstance(each, InvalidTrajectory):
                yield number, each
            elif each.is_log:
                logs.append(each)
            else:
                self._joiner.facts(each.trace_id).learn(each)
                if is_model_call(each):
                    spans.append(each)
        self._values += 1
        self._calls += len(spans)
        self._logs.add(logs)
        calls = []
        for span in once(spans):
            try:
                calls += read_calls(span)
            except InvalidTrajectory as refusal:
                if refusal.code == "otlp_no_content":
                    self._bare.append((number, span))
                else:
                    yield number, refusal
        for call in in_order(calls):
            yield from self._joiner.add(call, number)
        if self._logs.is_full or len(self._bare) > _MOST_BARE:
            yield from self._settle()

    def _settle(self) -> Iterator[Sent]:
        """Read the calls that wait for their messages with the log records that have come."""
        calls = []
        for number, span in self._bare:
            try:
                calls += [(number, call) for call in read_calls(self._logs.put_into(span))]
            except InvalidTrajectory as refusal:
                yield number, refusal
        for number, call in sorted(calls, key=lambda found: found[1].start_ns):
            yield from self._joiner.add(call, number)
        self._bare, self._logs = [], SpanLogs()


class OtlpSplitter:
    """JSON by lines, lists or documents, or protobuf: the first bytes say which."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._head = b""
        self._splitter: JsonSplitter | ProtobufSplitter | None = None

    @property
    def number(self) -> int:
        return self._splitter.number if self._splitter else 0

    @property
    def unit(self) -> str:
        return self._splitter.unit if self._splitter else "line"

    @property
    def cut(self) -> bool:
        return self._splitter.cut if self._splitter else False

    def feed(self, piece: bytes) -> Iterator[JsonLine]:
        if self._splitter is None:
            self._head += piece
            if len(self._head) < 8:
                return
            piece = self._head
        yield from self._decided().feed(piece)

    def finish(self) -> Iterator[JsonLine]:
        begun, splitter = self._splitter is not None, self._decided()
        if not begun:
            yield from splitter.feed(self._head)
        yield from splitter.finish()

    def _decided(self) -> JsonSplitter | ProtobufSplitter:
        if self._splitter is None:
            kind = JsonSplitter if looks_like_json(self._head) else ProtobufSplitter
            self._splitter = kind(self._max_bytes)
        return self._splitter


def parse(data: bytes) -> object:
    """A parsed JSON value, or an iterator of the spans of a protobuf message. Raises InvalidJson."""
    return parse_json(data) if looks_like_json(data) else read_protobuf(data)
