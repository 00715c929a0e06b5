"""A conversation as a person reads it, a page at a time: who speaks, the text, and tools that can be unfolded."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_TURNS = 200
"""Turns on a page: thousands take seconds to be written, and longer to be laid out."""


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


@dataclass(frozen=True)
class Talk:
    """What a page shows of a conversation."""

    turns: Sequence[ShownTurn]
    first: int
    """Number of its first turn; the conversation's own first is 1."""
    count: int
    """Turns of the whole conversation."""

    @property
    def last(self) -> int:
        return self.first + len(self.turns) - 1

    @property
    def earlier(self) -> int | None:
        """The first turn of the page before."""
        return max(1, self.first - MOST_TURNS) if self.first > 1 else None

    @property
    def later(self) -> int | None:
        """The first turn of the next page."""
        return self.last + 1 if self.last < self.count else None


def talk_of(messages: Sequence[Mapping[str, Any]], wanted: str | None) -> Talk:
    """The page that begins with the turn of the number `wanted`; where that is none, the first page."""
    number = int(wanted) if wanted and wanted.isascii() and wanted.isdigit() and len(wanted) < 10 else 1
    first = number if 1 <= number <= len(messages) else 1
    return Talk(turns_of(messages[first - 1 : first - 1 + MOST_TURNS]), first, len(messages))


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
