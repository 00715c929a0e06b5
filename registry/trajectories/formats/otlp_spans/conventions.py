"""Where a span of a model's call holds its messages, by each convention that exporters follow. Pure.

- GenAI semantic conventions since 1.37: attributes `gen_ai.input.messages`, `gen_ai.output.messages`,
  `gen_ai.system_instructions` and `gen_ai.tool.definitions`, of the span or of one event.
- Before: an event a message, `gen_ai.user.message` and so on, and `gen_ai.choice`; before that, two events of JSON.
- OpenLLMetry (Traceloop): attributes `gen_ai.prompt.0.content` and so on, one a field.
- OpenInference (Arize): attributes `llm.input_messages.0.message.content` and so on.
- Vercel's AI SDK: `ai.prompt.messages`, `ai.response.text`, `ai.response.toolCalls`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.models import JsonObject
from registry.trajectories.formats.otlp_spans.spans import Span, SpanEvent
from registry.trajectories.formats.turns import parsed_text

_DEEPEST_KEY = 12
"""Parts of an attribute's dotted name that are told apart."""
_LONGEST_INDEX = 6


@dataclass
class CallContent:
    """The messages of one call as they were written down."""

    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    system: Any = None
    tools: Any = None
    are_choices: bool = False
    """Whether each output is an answer of its own, rather than a piece of the one answer."""


def find_content(span: Span) -> CallContent:
    """The content by the first convention that has any; empty where content was not captured."""
    for look in _CONVENTIONS:
        content = look(span)
        if content is not None and (content.inputs or content.outputs):
            content.tools = _tools(span) if content.tools is None else content.tools
            return content
    return CallContent()


def nested(attributes: Mapping[str, Any], prefix: str) -> Any:
    """What flattened attributes stand for: `p.0.role` and `p.1.role` become a list of objects with `role`."""
    root: JsonObject = {}
    for name, value in attributes.items():
        if not name.startswith(prefix + "."):
            continue
        *path, last = name[len(prefix) + 1 :].split(".")
        if len(path) >= _DEEPEST_KEY:
            continue
        holder: Any = root
        for step in path:
            holder = holder.setdefault(step, {})
            if not isinstance(holder, dict):
                break
        else:
            holder.setdefault(last, value)
    return _lists(root)


def _lists(value: Any) -> Any:
    """Objects whose keys are all numbers become lists, in the order of the numbers."""
    if not isinstance(value, dict):
        return value
    if value and all(key.isascii() and key.isdigit() and len(key) <= _LONGEST_INDEX for key in value):
        return [_lists(item) for _, item in sorted(value.items(), key=lambda pair: int(pair[0]))]
    return {key: _lists(item) for key, item in value.items()}


def _structured(value: object) -> Any:
    """What a JSON text holds; one that holds a bare number or constant stays a text: an answer may be `42`."""
    found = parsed_text(value)
    return found if isinstance(found, dict | list | str) else value


def _list(value: object) -> list[Any]:
    value = _structured(value)
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        value = value["messages"]
    if isinstance(value, list):
        return value
    return [] if value is None or value == {} else [value]


def _genai(span: Span) -> CallContent | None:
    """Attributes of the span, or of the event `gen_ai.client.inference.operation.details`."""
    for attributes in (span.attributes, *(event.attributes for event in span.events), *_bodies(span.events)):
        inputs, outputs = attributes.get("gen_ai.input.messages"), attributes.get("gen_ai.output.messages")
        if inputs is not None or outputs is not None:
            return CallContent(
                _list(inputs),
                _list(outputs),
                parsed_text(attributes.get("gen_ai.system_instructions")),
                parsed_text(attributes.get("gen_ai.tool.definitions")),
            )
    return None


def _events(span: Span) -> CallContent | None:
    """One event a message; their fields are the event's body, JSON in one attribute, or attributes."""
    found = CallContent(are_choices=True)
    sent = [(event.name or str(event.attributes.get("event.name")), event) for event in span.events]
    logfire = parsed_text(span.attributes.get("events"))
    if isinstance(logfire, list):
        dicts = [each for each in logfire if isinstance(each, dict)]
        sent += [(str(each.get("event.name")), SpanEvent(str(each.get("event.name")), {}, each)) for each in dicts]
    for name, event in sent:
        family, _, kind = name.partition(".")
        if family != "gen_ai" or not (kind == "choice" or kind.endswith(".message")):
            continue
        fields = _fields(event)
        if kind == "choice":
            message = _structured(fields.get("message"))
            message = message if isinstance(message, dict) else {"content": message} if message else fields
            found.outputs.append({**message, "finish_reason": fields.get("finish_reason")})
        else:
            found.inputs.append({"role": kind.removesuffix(".message"), **_without_none(fields)})
    return found


def _fields(event: SpanEvent) -> JsonObject:
    if isinstance(body := parsed_text(event.body), dict):
        return body
    content = parsed_text(event.attributes.get("gen_ai.event.content"))
    if isinstance(content, dict):
        return content
    fields = {name.removeprefix("gen_ai."): value for name, value in event.attributes.items()}
    for name in ("tool_calls", "message"):
        fields[name] = _structured(fields.get(name))
    return fields


def _whole_events(span: Span) -> CallContent | None:
    """The oldest: events, or attributes, with all messages in one JSON text."""
    found = CallContent()
    for attributes in (span.attributes, *(event.attributes for event in span.events)):
        found.inputs += _texts_as(_list(attributes.get("gen_ai.prompt")), "user")
        found.outputs += _texts_as(_list(attributes.get("gen_ai.completion")), "assistant")
    return found


def _traceloop(span: Span) -> CallContent | None:
    inputs, outputs = nested(span.attributes, "gen_ai.prompt"), nested(span.attributes, "gen_ai.completion")
    if not isinstance(inputs, list) and not isinstance(outputs, list):
        return None
    functions = nested(span.attributes, "llm.request.functions") or nested(span.attributes, "gen_ai.tool.definitions")
    return CallContent(
        [_role_first(each, "user") for each in _list(inputs)],
        [_role_first(each, "assistant") for each in _list(outputs)],
        tools=functions if isinstance(functions, list) else None,
    )


def _openinference(span: Span) -> CallContent | None:
    inputs = nested(span.attributes, "llm.input_messages")
    outputs = nested(span.attributes, "llm.output_messages")
    if not isinstance(inputs, list) and not isinstance(outputs, list):
        return None
    tools = nested(span.attributes, "llm.tools")
    schemas = [_member(each, "tool").get("json_schema") for each in _list(tools) if isinstance(each, dict)]
    return CallContent(
        [_inference_message(each) for each in _list(inputs)],
        [_inference_message(each) for each in _list(outputs)],
        tools=[parsed_text(schema) for schema in schemas] or None,
    )


def _inference_message(item: object) -> Any:
    if not isinstance(item, dict):
        return item
    message = dict(_member(item, "message") or item)
    calls = [_member(each, "tool_call") for each in _list(message.get("tool_calls")) if isinstance(each, dict)]
    message["tool_calls"] = calls
    if not calls and message.get("function_call_name"):
        arguments = message.get("function_call_arguments_json")
        message["tool_calls"] = [{"name": message["function_call_name"], "arguments": arguments}]
    contents = [each for each in _list(message.pop("contents", None)) if isinstance(each, dict)]
    if message.get("content") is None and contents:
        blocks = [{**_member(each, "message_content"), "call": _member(each, "tool_call")} for each in contents]
        # Calls stand in `tool_calls` too; the block only says where they came.
        kept = [block for block in blocks if not (calls and block.get("type") == "tool_use")]
        message["content"] = [_inference_block(block) for block in kept]
    return message


def _inference_block(block: JsonObject) -> JsonObject:
    call = block.pop("call")
    if block.get("type") == "tool_use":
        function = _member(call, "function")
        return {"type": "tool_use", "id": call.get("id"), **function}
    return block


def _ai_sdk(span: Span) -> CallContent | None:
    attributes = span.attributes
    inputs = _list(attributes.get("ai.prompt.messages"))
    text, calls = attributes.get("ai.response.text"), parsed_text(attributes.get("ai.response.toolCalls"))
    answer: JsonObject = {
        "role": "assistant",
        "content": text,
        "finish_reason": attributes.get("ai.response.finishReason"),
    }
    if attributes.get("ai.response.object"):
        answer["content"] = attributes["ai.response.object"]
    if isinstance(calls, list):
        dicts = [call for call in calls if isinstance(call, dict)]
        made = [{**call, "type": "tool-call"} for call in dicts]
        answer["content"] = [*([{"type": "text", "text": text}] if text else []), *made]
    if not inputs and not answer["content"]:
        return None
    tools = attributes.get("ai.prompt.tools")
    declared = [parsed_text(tool) for tool in tools] if isinstance(tools, list) else None
    return CallContent(inputs, [answer] if answer["content"] else [], tools=declared)


def _tools(span: Span) -> Any:
    for name in ("gen_ai.tool.definitions", "gen_ai.request.tools"):
        if (found := parsed_text(span.attributes.get(name))) is not None:
            return found
    # Pydantic AI, before it wrote the first of them.
    parameters = parsed_text(span.attributes.get("model_request_parameters"))
    return parameters.get("function_tools") if isinstance(parameters, dict) else None


def _bodies(events: Iterable[SpanEvent]) -> list[JsonObject]:
    return [event.body for event in events if isinstance(event.body, dict)]


def _texts_as(messages: list[Any], role: str) -> list[Any]:
    return [{"role": role, "content": each} if isinstance(each, str) else each for each in messages]


def _role_first(message: Any, role: str) -> Any:
    return {"role": role, **message} if isinstance(message, dict) else message


def _member(holder: Mapping[str, Any], name: str) -> JsonObject:
    found = holder.get(name)
    return found if isinstance(found, dict) else {}


def _without_none(fields: JsonObject) -> JsonObject:
    return {name: value for name, value in fields.items() if value is not None}


_CONVENTIONS: tuple[Callable[[Span], CallContent | None], ...] = (
    _genai,
    _traceloop,
    _openinference,
    _events,
    _ai_sdk,
    _whole_events,
)
