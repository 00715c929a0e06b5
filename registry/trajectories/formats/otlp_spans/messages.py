"""Messages as instrumentations write them, as messages of the format `chat`. Pure.

The same message comes with `parts` (the GenAI conventions of today), with `content` and `tool_calls` (earlier ones, and
OpenAI's), with blocks of `tool_use` and `tool_result` (Anthropic's), `tool-call` and `tool-result` (the AI SDK's).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.errors import InvalidTrajectory
from registry.json_text import show
from registry.models import JsonObject
from registry.trajectories.formats.turns import Call, Turns, parsed_text

_ROLES = {
    "system": "system",
    "instructions": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "customer": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}
_TEXTS = ("text", "input_text", "output_text", "refusal")
_THOUGHTS = ("reasoning", "thinking")
_CALLS = ("tool_call", "tool_use", "tool-call", "function_call")
_RESULTS = ("tool_call_response", "tool_result", "tool-result", "function_call_output")
_BEDROCK = ("text", "toolUse", "toolResult")
"""Blocks of Bedrock's Converse, which have no type."""
_NOT_READ = (
    "redacted_thinking",
    "redacted-reasoning",
    "server_tool_call",
    "server_tool_call_response",
    "server_tool_use",
    "web_search_tool_result",
)
"""Parts that say nothing which a model of ours could read or write."""


@dataclass
class Parts:
    """What a message holds, sorted by what it is."""

    texts: list[Any] = field(default_factory=list)
    thoughts: list[Any] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    results: list[tuple[object, object, object]] = field(default_factory=list)
    """(id, name, content)"""

    @property
    def content(self) -> Any:
        """One text, a list of text parts, or None."""
        if len(self.texts) == 1:
            return self.texts[0]
        return [{"type": "text", "text": text} for text in self.texts] or None

    @property
    def thought(self) -> str:
        return "\n".join(thought for thought in self.thoughts if isinstance(thought, str))

    def __bool__(self) -> bool:
        return bool(self.texts or self.calls)


def add_message(turns: Turns, message: object, place: str) -> None:
    """Add what was sent to a model.

    Raises:
        InvalidTrajectory: `message_not_object`, `role_unknown` or `content_part`.
    """
    if not isinstance(message, dict):
        raise InvalidTrajectory("message_not_object", f"{place}: got {show(message)}; expected an object")
    sent = message.get("role")
    role = _ROLES.get(sent.lower()) if isinstance(sent, str) else None
    if role is None:
        raise InvalidTrajectory("role_unknown", f"{place}.role: got {show(sent)}; expected one of {', '.join(_ROLES)}")
    parts = read_parts(message, place)
    for call_id, name, content in parts.results:
        _add_result(turns, content, call_id, name)
    if role == "tool":
        if not parts.results:
            _add_result(turns, parts.content, message.get("tool_call_id", message.get("id")), message.get("name"))
    elif role == "assistant" and parts.calls and not (parts.texts or parts.thoughts):
        turns.call(parts.calls)  # of the answer in front, if that is a message of its own
    elif role == "assistant":
        turns.answer(parts.content, parts.calls, reasoning=parts.thought)
    elif parts.texts or not parts.results:
        turns.say(role, parts.content)


def _add_result(turns: Turns, content: object, call_id: object, name: object) -> None:
    # OpenLLMetry names a call of OpenAI's responses by its item, and the result by the call: then their order says.
    known = not turns.open_calls or (isinstance(call_id, str) and call_id in turns.open_names)
    turns.result(result_text(content), call_id=call_id if known else None, name=name)


def read_answer(messages: Iterable[tuple[object, str]]) -> Parts:
    """One answer, of the messages with their places that it was written down as. Raises as `add_message`."""
    answer = Parts()
    for message, place in messages:
        if not isinstance(message, dict):
            raise InvalidTrajectory("message_not_object", f"{place}: got {show(message)}; expected an object")
        parts = read_parts(message, place)
        answer.texts += parts.texts
        answer.thoughts += parts.thoughts
        answer.calls += parts.calls
    return answer


def read_parts(message: Mapping[str, Any], place: str) -> Parts:
    """Raises InvalidTrajectory: `content_part`: a part that is no text, call, result or thought."""
    parts = Parts()
    content = message["parts"] if message.get("parts") is not None else message.get("content")
    for number, part in enumerate(_as_parts(content)):
        _sort(part, parts, f"{place}.content[{number}]")
    for thought in ("reasoning_content", "reasoning"):
        if message.get(thought):
            parts.thoughts.append(message[thought])
    if not parts.texts and isinstance(message.get("refusal"), str):
        parts.texts.append(message["refusal"])
    calls = message.get("tool_calls")
    # Where calls stand among the parts too, they are the same ones.
    for call in calls if isinstance(calls, list) and not parts.calls else ():
        if isinstance(call, dict):
            function = call["function"] if isinstance(call.get("function"), dict) else call
            parts.calls.append(Call(function.get("name"), function.get("arguments"), call.get("id")))
    return parts


def result_text(content: object) -> str:
    """What a tool returned, as a text: JSON for what is neither text nor text parts."""
    if content is None:
        return ""
    if isinstance(content, dict) and content.get("type") in ("text", "json", "error-text") and "value" in content:
        content = content["value"]
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text", part.get("content")) for part in content if isinstance(part, dict)]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "\n".join(map(str, texts))
    return json.dumps(content, ensure_ascii=False)


def _as_parts(content: object) -> list[Any]:
    if content is None:
        return []
    if isinstance(content, str) and content.startswith("[{"):
        # Some write a list of parts as its JSON text.
        found = parsed_text(content)
        if isinstance(found, list) and all(_is_part(part) for part in found):
            return found
    return content if isinstance(content, list) else [content]


def _is_part(part: object) -> bool:
    known = (*_TEXTS, *_THOUGHTS, *_CALLS, *_RESULTS, *_NOT_READ)
    return isinstance(part, dict) and (part.get("type") in known or (len(part) == 1 and next(iter(part)) in _BEDROCK))


def _sort(part: object, parts: Parts, place: str) -> None:
    if not isinstance(part, dict):
        parts.texts.append(part)  # a text, or refused as what it is
        return
    kind = part.get("type")
    for bedrock, as_type in (("toolUse", "tool_use"), ("toolResult", "tool_result")):
        if kind is None and isinstance(block := part.get(bedrock), dict):
            kind, part = as_type, {**block, "id": block.get("toolUseId")}
    if kind in _TEXTS:
        parts.texts.append(_first(part, "content", "text", "refusal"))
    elif kind in _THOUGHTS:
        parts.thoughts.append(_first(part, "content", "text", "thinking"))
    elif kind in _CALLS:
        arguments = _first(part, "arguments", "input", "args")
        parts.calls.append(
            Call(_first(part, "name", "toolName"), arguments, _first(part, "id", "toolCallId", "call_id"))
        )
    elif kind in _RESULTS:
        content = _first(part, "response", "result", "content", "output")
        own_id = _first(part, "id", "tool_use_id", "toolCallId", "call_id")
        parts.results.append((own_id, _first(part, "name", "toolName"), content))
    elif kind is None and isinstance(text := _first(part, "text", "content"), str):
        parts.texts.append(text)
    elif kind not in _NOT_READ:
        raise InvalidTrajectory("content_part", f"{place}: got {show(part)}; expected text, a call or its result")


def _first(holder: JsonObject, *names: str) -> Any:
    return next((holder[name] for name in names if holder.get(name) is not None), None)
