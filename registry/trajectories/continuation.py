"""Which conversation continues which: hashes of a conversation up to each of its assistant turns. Pure; knows no row.

A client sends back what it was answered, but seldom as it was: arguments of calls are spelled anew (spaces, order of
keys, `1.0` for `1`, escapes), contents become lists of parts or null, thoughts are dropped, ids are replaced, one
answer comes back as two messages or two as one. None of that changes a hash here. What a model reads does: another
text, another call, another order, a message less.

Neighbouring assistant messages are one turn. System and developer messages are one role. What is compared of a message
is its text without the spaces around it, and its calls without their ids.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ROLES = {"developer": "system", "function": "tool"}
_TEXT_PARTS = ("text", "refusal", "input_text", "output_text")


@dataclass(frozen=True)
class TurnEnd:
    """The end of an assistant turn."""

    end: int
    """Index of the first message behind it."""
    start: int
    """Index of its first message."""
    hash: str
    """Hash of the conversation up to here. 64 hex digits."""


def turn_points(messages: Sequence[Mapping[str, Any]]) -> list[TurnEnd]:
    """A point for each assistant turn, in order. Takes time linear in the conversation.

    For user, assistant, assistant, tool, assistant: points at 3 and 5.
    """
    chain = hashlib.sha256()
    points: list[TurnEnd] = []
    for start, end in _units(messages):
        unit = messages[start:end]
        # Each unit's length stands in front of it, so that no two conversations run together.
        written = json.dumps(_unit(unit), separators=(",", ":")).encode()
        chain.update(b"%d:" % len(written) + written)
        if unit[0]["role"] == "assistant":
            points.append(TurnEnd(end, start, chain.copy().hexdigest()))
    return points


def tip_of(messages: Sequence[Mapping[str, Any]], answer: Mapping[str, Any]) -> str:
    """Hash of the conversation with its answer."""
    return turn_points([*messages, answer])[-1].hash


def tools_hash(tools: Sequence[Any] | None) -> str | None:
    """Hash of what tools are offered; None for none. Their order counts: a model reads them in it."""
    if not tools:
        return None
    return hashlib.sha256(json.dumps(tools, sort_keys=True).encode()).hexdigest()


def with_ids_of(messages: list[Any], echo: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Recorded messages of one assistant turn, with the ids that a client has given its calls.

    The results that follow name those. `echo` is the turn as the client sent it back.
    """
    ids = [call.get("id") for message in echo for call in message.get("tool_calls") or ()]
    own = [call for message in messages for call in message.get("tool_calls") or ()]
    if len(ids) != len(own) or ids == [call.get("id") for call in own] or not all(isinstance(i, str) for i in ids):
        return messages
    given = iter(ids)
    return [
        {**message, "tool_calls": [{**call, "id": next(given)} for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _units(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """(start, end) of each message, neighbouring assistant messages together."""
    start = 0
    while start < len(messages):
        end = start + 1
        if messages[start]["role"] == "assistant":
            while end < len(messages) and messages[end]["role"] == "assistant":
                end += 1
        yield start, end
        start = end


def _unit(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
    role = str(messages[0]["role"])
    texts = [text for text in map(message_text, messages) if text]
    calls = [call for message in messages for call in _calls(message)]
    return [_ROLES.get(role, role), "\n\n".join(texts), calls]


def message_text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part_text(part) for part in content)
    text = content if isinstance(content, str) and content else message.get("refusal")
    return text.strip() if isinstance(text, str) else ""


def _part_text(part: object) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.get("type") not in _TEXT_PARTS:
        return ""
    text = part.get("refusal" if part["type"] == "refusal" else "text")
    return text if isinstance(text, str) else ""


def _calls(message: Mapping[str, Any]) -> Iterator[list[Any]]:
    made = message.get("tool_calls")
    calls = list(made) if isinstance(made, list) else []
    if isinstance(older := message.get("function_call"), dict):
        calls.append({"function": older})
    for call in calls:
        function = (call.get("function") or call.get("custom") or {}) if isinstance(call, dict) else {}
        given = function.get("arguments", function.get("input"))
        yield [str(function.get("name")), _arguments(given)]


def _arguments(given: object) -> Any:
    """The value that the arguments spell; a text that is no JSON stays one."""
    try:
        value = json.loads(given.strip() or "{}") if isinstance(given, str) else given
        return json.dumps(_settled(value if value is not None else {}), sort_keys=True)
    except (ValueError, RecursionError):
        return str(given).strip()


def _settled(value: object) -> Any:
    """Numbers that are equal become the same one: a client in JavaScript knows no 1.0."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {str(key): _settled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_settled(each) for each in value]
    return value
