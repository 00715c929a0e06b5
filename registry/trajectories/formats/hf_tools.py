"""Format `hf-tools`: rows of `messages` as Hugging Face's datasets and chat templates have them. Pure; knows no row.

Arguments are objects, calls and results have no ids, and a columnar export writes a null for every field that any other
row has: in messages, in tools' schemas and in arguments.
"""

import json
from typing import Any

from registry.errors import InvalidTrajectory
from registry.json_text import show
from registry.models import JsonObject
from registry.trajectories.draft import Draft
from registry.trajectories.formats import chat
from registry.trajectories.formats.mapping import DROPPED, Mapped
from registry.trajectories.formats.turns import (
    Turns,
    foreign_envelope,
    parsed_text,
    read_calls,
    read_tools,
    without_nulls,
)

_RESULTS = ("tool", "function", "ipython", "tool_response", "observation")
_CALLS = ("tool_call", "function_call")
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")
_LISTS = ("messages", "conversations", "conversation", "trajectory")
_OWN = (*_LISTS, "prompt", "completion", "tools", "functions", "id")

SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "messages": {"type": ["array", "string"], "items": {"type": "object"}},
        "prompt": {"type": ["array", "null"], "description": "With `completion`: messages that are context only."},
        "completion": {"type": ["array", "null"], "description": "Messages behind `prompt` that are learned from."},
        "tools": {"type": ["array", "string", "null"]},
        "memgen": {"type": ["object", "null"], "description": "Fields of the format `chat`, such as `reward`."},
    },
}
MAPPING = (
    Mapped(
        "`messages`, else `conversations`, `conversation` or `trajectory`", "`messages`", "a list, or its JSON text"
    ),
    Mapped("`prompt` and `completion` that are lists", "`messages`", "assistant turns of the prompt have `weight` 0"),
    Mapped("`role`: system, developer, user, assistant", "the same role"),
    Mapped("`role`: tool, function, ipython, tool_response, observation", "tool"),
    Mapped(
        "`role`: tool_call, function_call",
        "assistant with `tool_calls`",
        "content is the JSON of calls, or Python's spelling of it; they are of the answer directly in front of them",
    ),
    Mapped(
        "`tool_calls[]` of {function: {name, arguments}} or {name, arguments}",
        "`tool_calls[]`",
        "arguments become JSON text",
    ),
    Mapped("`function_call`", "`tool_calls[]`", "OpenAI's older form of one call"),
    Mapped("calls without `id`", "ids of their own", "`call_1`, `call_2`, ..."),
    Mapped("results without `tool_call_id`", "the first open call of their `name`", "or else the first open one"),
    Mapped("results where the last answer called nothing", "user", "agents that call in their text"),
    Mapped("results that are objects or lists", "their JSON text"),
    Mapped("an answer in front of all questions", "`weight` 0", "a greeting; unless it has a weight"),
    Mapped("null fields of messages, tools and arguments", DROPPED, "a columnar export writes them for what is absent"),
    Mapped("`reasoning_content`, `thinking`, `reasoning`", "`reasoning_content`", "not learned from"),
    Mapped("`weight`", "`weight`", "as in `chat`"),
    Mapped(
        "`tools`, else `functions`",
        "`tools`",
        "a list or its JSON text; bare functions are wrapped; schemas may be JSON texts",
    ),
    Mapped("`id`", "`trajectory_id`", "numbers become texts"),
    Mapped("`reward`, `success`, `session_id`, ... of their type", "the same", "as in `chat`"),
    Mapped("`memgen`", "`task`, `reward`, ...", "an object with fields of the format `chat`"),
    Mapped("other columns", "`metadata`", "nulls are absent"),
    Mapped("other fields of a message", DROPPED),
)


def read(item: object) -> Draft:
    """The draft of one row.

    Raises:
        InvalidTrajectory: `not_an_object`, `tool_calls_malformed` or one of `chat.read`.
    """
    if not isinstance(item, dict):
        raise InvalidTrajectory("not_an_object", f"got {show(item)}; expected a JSON object with `messages`")
    messages, from_here = _messages(item)
    turns = Turns()
    for number, message in enumerate(messages):
        _add(turns, message, f"messages[{number}]", context=number < from_here)
    fields = foreign_envelope({key: value for key, value in item.items() if key not in _OWN})
    if isinstance(own_id := item.get("id"), str | int) and not isinstance(own_id, bool) and str(own_id):
        fields.setdefault("trajectory_id", str(own_id))
    tools = item["tools"] if item.get("tools") is not None else item.get("functions")
    return chat.read({**fields, "messages": turns.messages, "tools": read_tools(without_nulls(tools))})


def _messages(item: JsonObject) -> tuple[list[Any], int]:
    """All messages, and the number of those that are context only."""
    messages = next((parsed_text(item[name]) for name in _LISTS if item.get(name) is not None), None)
    prompt, completion = (parsed_text(item.get(name)) for name in ("prompt", "completion"))
    if messages is None and isinstance(prompt, list) and isinstance(completion, list):
        return [*prompt, *completion], len(prompt)
    if messages is None:
        raise InvalidTrajectory("messages_missing", "messages: missing; expected a list of chat messages")
    if not isinstance(messages, list):
        raise InvalidTrajectory("messages_not_list", f"messages: got {show(messages)}; expected a list")
    return messages, 0


def _add(turns: Turns, message: object, place: str, *, context: bool) -> None:
    if not isinstance(message, dict):
        raise InvalidTrajectory("message_not_object", f"{place}: got {show(message)}; expected an object")
    role, content = message.get("role"), message.get("content")
    if isinstance(content, list):
        content = without_nulls(content)
    weight = 0 if context else message.get("weight")
    if role in _RESULTS:
        text = content if isinstance(content, str | list) else _json_text(content)
        turns.observe(text, call_id=message.get("tool_call_id"), name=message.get("name"))
    elif role in _CALLS:
        turns.call(read_calls(content, place), weight=weight)
    elif role == "assistant":
        calls = read_calls(message.get("tool_calls") or message.get("function_call"), place)
        turns.answer(content, calls, weight=weight, reasoning=next(filter(None, map(message.get, _THOUGHTS)), None))
    else:
        turns.say(role, content)  # type: ignore[arg-type]  # an unknown role is refused as what it is


def _json_text(value: object) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)
