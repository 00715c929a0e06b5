"""Items of the Responses API as messages of a chat. Pure.

What an answer said, thought and called are items of their own there, and one message here. Our own items are always
taken back, and so are those of others that are text or calls of functions.
"""

import json
from typing import Any

from api.endpoints.foreign_body import refuse
from api.http.json_object import JsonObject, JsonObjects
from registry.errors import InvalidTrajectory
from registry.json_text import show

_TEXT_PARTS = ("input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text")
_ROLES = ("system", "developer", "user", "assistant")
_CALLS = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_EXPECTED = "a message, a function_call, a function_call_output or a reasoning item"


def chat_messages(items: JsonObjects) -> JsonObjects:
    """The messages of a chat. Takes time linear in the items' length.

    Raises:
        InvalidTrajectory: an item that can't be shown to a model, with its place in the input.
    """
    messages: JsonObjects = []
    turn: JsonObject | None = None
    """The assistant's message that the next item may belong to."""
    for number, item in enumerate(items):
        place = f"input[{number}]"
        kind = _kind(item, place)
        if kind in _OUTPUTS:
            turn = None
            messages.append(_result(item, place))
            continue
        if kind == "message" and item["role"] != "assistant":
            turn = None
            messages.append({"role": item["role"], "content": _text(item.get("content"), f"{place}.content")})
            continue
        if turn is None or (kind not in _CALLS and turn["content"] is not None and "tool_calls" not in turn):
            turn = {"role": "assistant", "content": None}
            messages.append(turn)
        if kind == "message":
            text = _text(item.get("content"), f"{place}.content")
            # What is said behind a call is of the same turn: the call's result must stand next to it.
            turn["content"] = text if turn["content"] is None else f"{turn['content']}\n{text}"
        elif kind == "reasoning":
            turn["reasoning_content"] = turn.get("reasoning_content", "") + _thought(item, place)
        else:
            turn.setdefault("tool_calls", []).append(_call(item, kind, place))
    return messages


def _kind(item: JsonObject, place: str) -> str:
    kind = item.get("type")
    if kind is None and "role" in item:
        kind = "message"
    if kind == "message":
        if item.get("role") not in _ROLES:
            raise refuse(f"{place}.role", item.get("role"), f"one of {', '.join(_ROLES)}", "role_unknown")
    elif kind == "item_reference":
        raise _unread(place, item, "the item itself: items by reference are not kept")
    elif not isinstance(kind, str) or (kind not in _CALLS and kind not in _OUTPUTS and kind != "reasoning"):
        raise _unread(f"{place}.type", kind, _EXPECTED)
    return kind


def _unread(place: str, got: object, expected: str) -> InvalidTrajectory:
    return InvalidTrajectory("input_item", f"{place}: got {show(got)}; expected {expected}")


def _call(item: JsonObject, kind: str, place: str) -> JsonObject:
    noun, argument = _CALLS[kind]
    name, call_id = item.get("name"), item.get("call_id") or item.get("id")
    if not isinstance(name, str) or not name:
        raise refuse(f"{place}.name", name, "the function's name", "tool_call_no_name")
    given = item.get(argument)
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    return {"id": call_id, "type": noun, noun: {"name": name, argument: text}}


def _result(item: JsonObject, place: str) -> JsonObject:
    call_id = item.get("call_id")
    if not isinstance(call_id, str) or not call_id:
        raise refuse(f"{place}.call_id", call_id, "the call_id of the call it answers", "tool_call_id_missing")
    output = item.get("output")
    content = "" if output is None else _text(output, f"{place}.output")
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def _thought(item: JsonObject, place: str) -> str:
    """The thought in plain text; its summary where that is all there is. An encrypted one is another service's."""
    for name in ("content", "summary"):
        if isinstance(parts := item.get(name), list) and parts:
            return _text(parts, f"{place}.{name}")
    return ""


def _text(content: Any, place: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise refuse(place, content, "a string or a list of text parts", "content_type")
    return "".join(_part(part, f"{place}[{number}]") for number, part in enumerate(content))


def _part(part: Any, place: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("refusal" if kind == "refusal" else "text") if kind in _TEXT_PARTS else None
    if not isinstance(text, str):
        expected = '{"type": "input_text", "text": "..."}: only text is read, no images, sounds or files'
        raise refuse(place, part, expected)
    return text
