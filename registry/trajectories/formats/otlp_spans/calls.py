"""Calls of models out of spans: what was asked, what was answered, and to which conversation it belongs. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.errors import InvalidTrajectory
from registry.models import JsonObject
from registry.trajectories.formats.otlp_spans.conventions import CallContent, find_content
from registry.trajectories.formats.otlp_spans.messages import add_message, read_answer
from registry.trajectories.formats.otlp_spans.spans import Span
from registry.trajectories.formats.turns import Turns, read_tools

_CALLS = (
    *("chat", "completion", "text_completion", "generate_content", "message", "messages", "response", "responses"),
    *("chat.completions", "chat.streaming_completions", "text.completions", "text.streaming_completions"),
)
"""Operations that call a model, in `gen_ai.operation.name` and `llm.request.type`."""
_AI_SDK_CALLS = ("doGenerate", "doStream")
CONVERSATIONS = (
    "gen_ai.conversation.id",
    "session.id",
    "traceloop.association.properties.conversation_id",
    "traceloop.association.properties.session_id",
    "traceloop.association.properties.thread_id",
    "langfuse.session.id",
    "ai.telemetry.metadata.sessionId",
)
"""Attributes that name the conversation, the first that is there."""
MODELS = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name", "ai.response.model", "ai.model.id")
_USAGE = {
    "prompt_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    "completion_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"),
}
OWN_ATTRIBUTES = ("task", "reward", "reward_source", "success")
"""Fields of the envelope that an attribute `memgen.*` of any span may say of its trace."""
_MOST_CHOICES = 16
_SERVED_VERSION = re.compile(r"[a-z0-9][a-z0-9._-]*@[0-9]+")

NO_CONTENT = (
    "span {span}: a call of a model without its messages; let the instrumentation write content into its spans "
    "(OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental with "
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_ONLY, or TRACELOOP_TRACE_CONTENT=true)"
)


@dataclass(frozen=True)
class SpanCall:
    """One answer with what was asked."""

    trace_id: str
    span_id: str
    conversation: str | None
    start_ns: int
    end_ns: int
    messages: list[JsonObject]
    answer: JsonObject
    tools: list[Any] | None
    finish_reason: str
    model: str
    response_id: str | None
    service: str | None
    usage: JsonObject = field(default_factory=dict)
    choice: int = 0

    @property
    def adapter_version(self) -> str | None:
        """The model's name, where it is a version of an adapter here."""
        return self.model if _SERVED_VERSION.fullmatch(self.model) else None


@dataclass
class TraceFacts:
    """What any span of a trace says of all of it."""

    conversation: str | None = None
    own: JsonObject = field(default_factory=dict)
    of_spans: JsonObject = field(default_factory=dict)
    """What of `own` spans say: resources say the same of every trace."""

    def learn(self, span: Span) -> None:
        self.conversation = conversation_of(span) or self.conversation
        for holder in (span.resource, span.attributes):
            found = {name: holder[f"memgen.{name}"] for name in OWN_ATTRIBUTES if f"memgen.{name}" in holder}
            known = {name: value for name, value in found.items() if value is not None}
            self.own |= known
            if holder is span.attributes:
                self.of_spans |= known


def conversation_of(span: Span) -> str | None:
    found = (span.attributes.get(name) for name in CONVERSATIONS)
    return next((value[:256] for value in found if isinstance(value, str) and value), None)


def is_model_call(span: Span) -> bool:
    """Whether the span is a call of a model: not of an agent, a tool or an embedding."""
    attributes = span.attributes
    operation = attributes.get("gen_ai.operation.name", attributes.get("llm.request.type"))
    if isinstance(operation, str):
        return operation.lower() in _CALLS
    if (kind := attributes.get("openinference.span.kind")) is not None:
        return bool(kind == "LLM")
    if isinstance(sdk := attributes.get("ai.operationId"), str):
        return sdk.endswith(_AI_SDK_CALLS)
    names = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.prompt.0.role", "gen_ai.completion.0.content")
    return any(name in attributes for name in names)


def read_calls(span: Span) -> list[SpanCall]:
    """The answers of one call of a model; none where it failed, unless it says how they ended.

    Raises:
        InvalidTrajectory: `otlp_no_content`, or what is wrong with its messages.
    """
    content = find_content(span)
    if span.failed and (not content.outputs or _finish_reason(span.attributes, content.outputs, 0) is None):
        return []  # what there may be of an answer broke off
    if not content.outputs or not content.inputs:
        raise InvalidTrajectory("otlp_no_content", NO_CONTENT.format(span=span.span_id[:32] or "without an id"))
    turns = Turns()
    _add_system(turns, content.system)
    for number, message in enumerate(content.inputs):
        add_message(turns, message, f"input[{number}]")
    tools = read_tools(content.tools)
    return [
        _call(span, turns, outputs, tools, number)
        for number, outputs in enumerate(_answers(content, _choices(span.attributes)))
    ]


def _call(
    span: Span, turns: Turns, outputs: list[tuple[object, str]], tools: list[Any] | None, choice: int
) -> SpanCall:
    parts = read_answer(outputs)
    if not parts:
        raise InvalidTrajectory("otlp_no_content", NO_CONTENT.format(span=span.span_id[:32] or "without an id"))
    asked = Turns(list(turns.messages), dict(turns.open_names), turns.calls_made)
    asked.answer(parts.content, parts.calls, reasoning=parts.thought)
    model = next((value for name in MODELS if isinstance(value := span.attributes.get(name), str) and value), "")
    return SpanCall(
        trace_id=span.trace_id,
        span_id=span.span_id,
        conversation=conversation_of(span),
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        messages=turns.messages,
        answer=asked.messages[-1],
        tools=tools,
        finish_reason=_finish_reason(span.attributes, [output for output, _ in outputs], choice) or "stop",
        model=model[:256],
        response_id=_text(span.attributes, "gen_ai.response.id"),
        service=_text(span.resource, "service.name"),
        usage=_usage(span.attributes),
        choice=choice,
    )


def _add_system(turns: Turns, system: object) -> None:
    """System instructions are parts, messages or a text, and stand in front."""
    if isinstance(system, str):
        turns.say("system", system)
        return
    items = system if isinstance(system, list) else [system] if isinstance(system, dict) else []
    loose = [item for item in items if not (isinstance(item, dict) and item.get("role"))]
    if loose:
        add_message(turns, {"role": "system", "parts": loose}, "system_instructions")
    for item in items:
        if isinstance(item, dict) and item.get("role"):
            add_message(turns, item, "system_instructions")


def _answers(content: CallContent, choices: int) -> list[list[tuple[object, str]]]:
    """The outputs of each answer. Most write one answer as one message, some as several, and several choices alike."""
    placed = [(output, f"output[{number}]") for number, output in enumerate(content.outputs)]
    if len(placed) > 1 and (choices > 1 or content.are_choices):
        return [[each] for each in placed[:_MOST_CHOICES]]
    return [placed]


def _choices(attributes: Mapping[str, Any]) -> int:
    found = (attributes.get(name) for name in ("gen_ai.request.choice.count", "gen_ai.request.n"))
    return next((count for count in found if isinstance(count, int)), 1)


def _finish_reason(attributes: Mapping[str, Any], outputs: Iterable[object], choice: int) -> str | None:
    """Why an answer ended, where that was written down."""
    reported = [output.get("finish_reason") for output in outputs if isinstance(output, dict)]
    reasons = attributes.get("gen_ai.response.finish_reasons", attributes.get("gen_ai.response.finish_reason"))
    reasons = reasons.split(",") if isinstance(reasons, str) else reasons
    if isinstance(reasons, list) and choice < len(reasons):
        reported.append(reasons[choice])
    return next((reason[:64] for reason in reported if isinstance(reason, str) and reason), None)


def _usage(attributes: Mapping[str, Any]) -> JsonObject:
    found = {
        name: next((attributes[each] for each in names if isinstance(attributes.get(each), int)), None)
        for name, names in _USAGE.items()
    }
    return {name: count for name, count in found.items() if count is not None}


def _text(holder: Mapping[str, Any], name: str) -> str | None:
    value = holder.get(name)
    return value[:256] if isinstance(value, str) and value else None
