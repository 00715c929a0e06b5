"""A conversation as a person reads it: who speaks, the text, and tools that can be unfolded."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ToolUse:
    name: str
    arguments: str


@dataclass(frozen=True)
class ShownTurn:
    role: str
    name: str
    """The name of the tool that answers, or of the speaker; empty if there is none."""
    text: str
    thought: str
    """What a model wrote for itself; empty if nothing is known."""
    calls: Sequence[ToolUse]
    is_learned: bool
    """Whether training looks at it: an answer whose weight is not 0."""


def turns_of(messages: Sequence[Mapping[str, Any]]) -> list[ShownTurn]:
    """The turns of a conversation in OpenAI's form, whatever its parts are."""
    return [
        ShownTurn(
            role=str(message.get("role", "")),
            name=str(message.get("name") or message.get("tool_call_id") or ""),
            text=_text(message.get("content")),
            thought=_text(message.get("reasoning_content")),
            calls=[_call(call) for call in message.get("tool_calls") or ()],
            is_learned=message.get("role") == "assistant" and message.get("weight") != 0,
        )
        for message in messages
    ]


def _text(content: object) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_part(part) for part in content)
    return _json(content)


def _part(part: object) -> str:
    text = part.get("text") if isinstance(part, Mapping) else None
    return text if isinstance(text, str) else _json(part)


def _call(call: object) -> ToolUse:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return ToolUse("", _json(call))
    arguments = function.get("arguments")
    return ToolUse(str(function.get("name", "")), arguments if isinstance(arguments, str) else _json(arguments))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
