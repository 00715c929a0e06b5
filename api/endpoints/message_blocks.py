"""Messages of Anthropic's API as messages of a chat. Pure.

Results of tools stand among a user's blocks there, and are messages of their own here. `cache_control` is passed over
wherever it stands: prompts are cached anyway.
"""

import json
from typing import Any

from api.endpoints.foreign_body import refuse
from api.http.json_object import JsonObject, JsonObjects

_THOUGHTS = ("thinking", "redacted_thinking")
_EXPECTED = '{"type": "text", "text": "..."}: only text is read, no images or documents'


def chat_messages(system: str | JsonObjects | None, messages: JsonObjects) -> JsonObjects:
    """The messages of a chat. Takes time linear in their length.

    Raises:
        InvalidTrajectory: a block that can't be shown to a model, with its place.
    """
    found: JsonObjects = [{"role": "system", "content": _text(system, "system")}] if system else []
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        role, content = message.get("role"), message.get("content")
        if role == "assistant":
            found.append(_answer(content, f"{place}.content"))
        elif role == "user":
            found += _question(content, f"{place}.content")
        elif role == "system":
            found.append({"role": "system", "content": _text(content, f"{place}.content")})
        else:
            raise refuse(f"{place}.role", role, "user or assistant", "role_unknown")
    if messages and messages[-1].get("role") == "assistant":
        place = f"messages[{len(messages) - 1}].role"
        raise refuse(place, "assistant", "user last: an answer that was begun can't be gone on with", "role_unknown")
    return found


def _question(content: Any, place: str) -> JsonObjects:
    """A user's turn: the results of tools in front of what is said."""
    if not isinstance(content, list):
        return [{"role": "user", "content": _text(content, place)}]
    results: JsonObjects = []
    texts: list[str] = []
    for number, block in enumerate(content):
        where = f"{place}[{number}]"
        if _kind(block) != "tool_result":
            texts.append(_block_text(block, where))
            continue
        call_id = block.get("tool_use_id")
        if not isinstance(call_id, str) or not call_id:
            raise refuse(f"{where}.tool_use_id", call_id, "the id of the tool_use it answers", "tool_call_id_missing")
        results.append({"role": "tool", "tool_call_id": call_id, "content": _result(block, where)})
    return [*results, {"role": "user", "content": "\n".join(texts)}] if texts or not results else results


def _result(block: JsonObject, place: str) -> str:
    content = block.get("content")
    text = "" if content is None else _text(content, f"{place}.content")
    # OpenAI's format has no mark for it, and a model should not take a failure without words for silence.
    return text or ("error" if block.get("is_error") else "")


def _answer(content: Any, place: str) -> JsonObject:
    if not isinstance(content, list):
        return {"role": "assistant", "content": _text(content, place)}
    texts: list[str] = []
    thoughts: list[str] = []
    calls: JsonObjects = []
    for number, block in enumerate(content):
        kind = _kind(block)
        if kind == "tool_use":
            calls.append(_call(block, f"{place}[{number}]"))
        elif kind in _THOUGHTS:
            thoughts.append(str(block.get("thinking") or ""))
        else:
            texts.append(_block_text(block, f"{place}[{number}]"))
    message: JsonObject = {"role": "assistant", "content": "\n".join(texts) if texts else None}
    if any(thoughts):
        message["reasoning_content"] = "\n".join(filter(None, thoughts))
    return {**message, "tool_calls": calls} if calls else message


def _call(block: JsonObject, place: str) -> JsonObject:
    name = block.get("name")
    if not isinstance(name, str) or not name:
        raise refuse(f"{place}.name", name, "the tool's name", "tool_call_no_name")
    arguments = json.dumps(block.get("input"), ensure_ascii=False)
    return {"id": block.get("id"), "type": "function", "function": {"name": name, "arguments": arguments}}


def _text(content: Any, place: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise refuse(place, content, "a string or a list of blocks", "content_type")
    return "\n".join(_block_text(block, f"{place}[{number}]") for number, block in enumerate(content))


def _block_text(block: Any, place: str) -> str:
    text = block.get("text") if _kind(block) == "text" else None
    if not isinstance(text, str):
        raise refuse(place, block, _EXPECTED)
    return text


def _kind(block: Any) -> object:
    return block.get("type") if isinstance(block, dict) else None
