"""Format `sharegpt`: rows with `conversations` of `from` and `value`, and the ways in which tools are written in them.

Calls are read where they are unmistakable: turns of `function_call`, and the tags `<tool_call>` and `<functioncall>` of
Hermes and Glaive in an assistant's text. Everything else stays the text that it is. Pure; knows no row.
"""

import json
import re
from typing import Any

from registry.errors import InvalidJson, InvalidTrajectory
from registry.json_text import parse_json, show
from registry.models import JsonObject
from registry.trajectories.draft import Draft
from registry.trajectories.formats import chat
from registry.trajectories.formats.mapping import DROPPED, Mapped
from registry.trajectories.formats.turns import (
    Call,
    Turns,
    foreign_envelope,
    parse_literal,
    read_calls,
    read_tools,
    without_nulls,
)

_ROLES = {
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "claude": "assistant", "model": "assistant", "bot": "assistant", "agent": "assistant", "ai": "assistant",
    "system": "system", "developer": "developer",
    "function_call": "call", "function-call": "call", "tool_call": "call",
    "observation": "result", "tool": "result", "tool_response": "result", "function_response": "result",
    "function-response": "result", "function": "result", "ipython": "result",
}  # fmt: skip
_LISTS = ("conversations", "conversation")
_OWN = (*_LISTS, "system", "system_prompt", "tools", "id")
_MARKS = re.compile(r"<(tool_call|functioncall)>|</tool_call>|<\|endoftext\|>")
_GLAIVE_ARGUMENTS = re.compile(r'"arguments"[ \t\n]{0,8}:[ \t\n]{0,8}\'')

SCHEMA: JsonObject = {
    "type": "object",
    "required": ["conversations"],
    "properties": {
        "conversations": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "from": {"enum": sorted(_ROLES)},
                    "value": {"type": "string"},
                    "weight": {"enum": [0, 1]},
                },
            },
        },
        "system": {"type": ["string", "null"]},
        "tools": {"type": ["string", "array", "null"], "description": "Function tools, or their JSON text."},
        "memgen": {"type": ["object", "null"], "description": "Fields of the format `chat`, such as `reward`."},
    },
}
MAPPING = (
    Mapped("`conversations` or `conversation`", "`messages`", "`role` and `content` are taken for `from` and `value`"),
    Mapped("`from`: human, user, prompter", "user"),
    Mapped("`from`: gpt, assistant, chatgpt, bing, bard, claude, model, bot, agent, ai", "assistant"),
    Mapped("`from`: system, developer", "the same role"),
    Mapped(
        "`from`: function_call, function-call, tool_call",
        "assistant with `tool_calls`",
        "JSON of one call or a list, or Python's spelling of it; they are of the answer directly in front of them",
    ),
    Mapped(
        "`from`: observation, tool, tool_response, function_response, function-response, function, ipython",
        "tool",
        "answers the first open call; a JSON list of as many results as calls is open is divided",
    ),
    Mapped("results where the last answer called nothing", "user", "agents that call in their text"),
    Mapped(
        "`<tool_call>{...}</tool_call>`, `<functioncall> {...}` in an assistant's value",
        "`tool_calls`",
        "text before the first stays the content; what is neither JSON nor Python's spelling of it stays text",
    ),
    Mapped("`tool_calls`, `function_call` of an assistant's turn", "`tool_calls`", "as in `hf-tools`"),
    Mapped("`<tool_response>...</tool_response>`", "tool message each", "the tags go"),
    Mapped("`<think>...</think>` that an assistant's value begins with", "`reasoning_content`", "not learned from"),
    Mapped("`weight`, `loss` or `train` of a turn", "`weight`", "false is 0"),
    Mapped("an answer in front of all questions", "`weight` 0", "a greeting; unless it has a weight"),
    Mapped("`system`, `system_prompt`", "system message in front", "unless the conversation has its own"),
    Mapped("`tools`", "`tools`", "JSON text or list; without it, what stands in `<tools>` of the system message"),
    Mapped("`id`", "`trajectory_id`", "numbers become texts"),
    Mapped("`reward`, `success`, `session_id`, ... of their type", "the same", "as in `chat`"),
    Mapped("`memgen`", "`task`, `reward`, ...", "an object with fields of the format `chat`"),
    Mapped("other columns", "`metadata`", "nulls are absent"),
    Mapped("other fields of a turn", DROPPED),
)


def read(item: object) -> Draft:
    """The draft of one row.

    Raises:
        InvalidTrajectory: `not_an_object`, `conversations_missing`, `message_not_object`, `role_unknown`,
            `function_call_malformed` or one of `chat.read`.
    """
    if not isinstance(item, dict):
        raise InvalidTrajectory("not_an_object", f"got {show(item)}; expected a JSON object with `conversations`")
    sent = next((item[name] for name in _LISTS if item.get(name) is not None), None)
    if not isinstance(sent, list):
        raise InvalidTrajectory(
            "conversations_missing", f"conversations: got {show(sent)}; expected a list of {{from, value}}"
        )
    turns = Turns()
    roles = [_role(turn, f"conversations[{number}]") for number, turn in enumerate(sent)]
    system = item.get("system") or item.get("system_prompt")
    if system and "system" not in roles:
        turns.say("system", system)
    for number, (role, turn) in enumerate(zip(roles, sent, strict=True)):
        _add(turns, role, turn, f"conversations[{number}]")
    fields = foreign_envelope({key: value for key, value in item.items() if key not in _OWN})
    if isinstance(own_id := item.get("id"), str | int) and not isinstance(own_id, bool) and str(own_id):
        fields.setdefault("trajectory_id", str(own_id))
    tools = item.get("tools")
    if tools is None or tools in ("", []):
        tools = _tools_in(turns.messages)
    return chat.read({**fields, "messages": turns.messages, "tools": read_tools(without_nulls(tools))})


def _role(turn: object, place: str) -> str:
    if not isinstance(turn, dict):
        raise InvalidTrajectory("message_not_object", f"{place}: got {show(turn)}; expected an object")
    sender = turn.get("from") if turn.get("from") is not None else turn.get("role")
    role = _ROLES.get(sender.strip().lower()) if isinstance(sender, str) else None
    if role is None:
        got = "missing" if sender is None else f"got {show(sender)}"
        raise InvalidTrajectory("role_unknown", f"{place}.from: {got}; expected one of {', '.join(_ROLES)}")
    return role


def _add(turns: Turns, role: str, turn: JsonObject, place: str) -> None:
    value = next((turn[name] for name in ("value", "content", "text") if turn.get(name) is not None), None)
    weight = next((turn[name] for name in ("weight", "loss", "train") if turn.get(name) is not None), None)
    if isinstance(weight, bool):
        weight = int(weight)
    if role == "call":
        turns.call(_calls(value, f"{place}.value"), weight=weight)
    elif role == "assistant":
        text, spelled, thought = _spelled_calls(value)
        calls = read_calls(turn.get("tool_calls") or turn.get("function_call"), place)
        turns.answer(text if not calls else value, calls or spelled, weight=weight, reasoning=thought)
    elif role == "result":
        for content in _results(value, turns.open_calls):
            turns.observe(content, call_id=turn.get("tool_call_id"))
    else:
        turns.say(role, value)


def _calls(value: object, place: str) -> list[Call]:
    try:
        parsed = parse_literal(value) if isinstance(value, str) else value
    except InvalidJson as error:
        if calls := _spelled_calls(value)[1]:
            return calls
        raise InvalidTrajectory("function_call_malformed", f"{place}: {error}; expected the JSON of a call") from error
    found = [_call(each) for each in (parsed if isinstance(parsed, list) else [parsed])]
    calls = [call for call in found if call is not None]
    if not calls or len(calls) != len(found):
        raise InvalidTrajectory(
            "function_call_malformed", f'{place}: got {show(value)}; expected {{"name": ..., "arguments": {{...}}}}'
        )
    return calls


def _call(value: object) -> Call | None:
    if isinstance(value, dict) and isinstance(inner := value.get("function"), dict):
        value = {**inner, "id": value.get("id")}
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters"))
    return Call(value["name"], without_nulls(arguments), value.get("id"))


def _spelled_calls(value: object) -> tuple[object, list[Call], str | None]:
    """(text, calls, thought) of an assistant's value; the whole value where it holds something else."""
    if not isinstance(value, str):
        return value, [], None
    reasoning = None
    opened, _, rest = value.partition("<think>")
    thought, closed, behind = rest.partition("</think>")
    if closed and not opened.strip():
        reasoning, value = thought.strip(), behind.lstrip()
    pieces = _MARKS.split(value)
    before = pieces[0].strip()
    calls = []
    for mark, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        if mark is None and not piece.strip():
            continue
        call = _parse_call(piece) if mark is not None else None
        if call is None:
            return value, [], reasoning
        calls.append(call)
    if not calls:
        return value, [], reasoning
    return before or None, calls, reasoning


def _parse_call(text: str) -> Call | None:
    for candidate in (text, _unquoted(text)):
        try:
            return _call(parse_literal(candidate))
        except InvalidJson:
            continue
    return None


def _unquoted(text: str) -> str:
    """Glaive writes the arguments' JSON between single quotes, inside of JSON."""
    opening, closing = _GLAIVE_ARGUMENTS.search(text), text.rfind("'")
    if opening is None or closing < opening.end():
        return text
    return f"{text[: opening.end() - 1]}{text[opening.end() : closing]}{text[closing + 1 :]}"


def _results(value: object, waiting: int) -> list[object]:
    if not isinstance(value, str):
        return [value]
    outside, *tagged = value.split("<tool_response>")
    parts = [part.partition("</tool_response>") for part in tagged]
    if parts and not outside.strip() and not any(behind.strip() for _, _, behind in parts):
        return [content.strip() for content, _, _ in parts]
    if waiting > 1 and value.lstrip().startswith("["):
        try:
            parsed: Any = parse_json(value)
        except InvalidJson:
            return [value]
        if isinstance(parsed, list) and len(parsed) == waiting:
            return [each if isinstance(each, str) else _json_text(each) for each in parsed]
    return [value]


def _json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _tools_in(messages: list[JsonObject]) -> object:
    """What a system message declares in `<tools>`, as Hermes' prompts do: a list, or one function a line."""
    first = messages[0] if messages else {}
    text = first.get("content")
    if first.get("role") != "system" or not isinstance(text, str):
        return None
    declared = [part.partition("</tools>")[0].strip() for part in text.split("<tools>")[1:]]
    # The prompt itself speaks of "<tools> </tools> tags" before it opens them.
    for block in [block for block in declared if block.startswith(("[", "{"))][:1]:
        for candidate in (block, f"[{','.join(filter(None, map(str.strip, block.split(chr(10)))))}]"):
            try:
                return parse_json(candidate)
            except InvalidJson:
                continue
    return None
