"""Format `hf-tools`: rows of `messages` as Hugging Face's datasets and chat templates have them. Pure; knows no row.

Arguments are objects, calls and results have no ids, and a columnar export writes a null for every field that any other
row has: in messages, in tools' schemas and in arguments.
"""

import json
from collections.abc import Iterator
from typing import Any

from registry.errors import InvalidTrajectory
from registry.json_text import show
from registry.models import JsonObject
from registry.trajectories.draft import Draft
from registry.trajectories.formats import chat
from registry.trajectories.formats.mapping import DROPPED, Mapped
from registry.trajectories.formats.turns import Call, Turns, foreign_envelope, parsed_text, read_tools, without_nulls

_RESULTS = ("tool", "function", "ipython", "tool_response", "observation")
_CALLS = ("tool_call", "function_call")
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")
_OWN = ("messages", "prompt", "completion", "tools", "id")

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
    Mapped("`messages`", "`messages`", "a list, or its JSON text"),
    Mapped("`prompt` and `completion` that are lists", "`messages`", "assistant turns of the prompt have `weight` 0"),
    Mapped("`role`: system, developer, user, assistant", "the same role"),
    Mapped("`role`: tool, function, ipython, tool_response, observation", "tool"),
    Mapped(
        "`role`: tool_call, function_call", "assistant with `tool_calls`", "content is the JSON of one call or several"
    ),
    Mapped(
        "`tool_calls[]` of {function: {name, arguments}} or {name, arguments}",
        "`tool_calls[]`",
        "arguments become JSON text",
    ),
    Mapped("calls without `id`", "ids of their own", "`call_1`, `call_2`, ..."),
    Mapped("results without `tool_call_id`", "the first open call of their `name`", "or else the first open one"),
    Mapped("results that are objects or lists", "their JSON text"),
    Mapped("null fields of messages, tools and arguments", DROPPED, "a columnar export writes them for what is absent"),
    Mapped("`reasoning_content`, `thinking`, `reasoning`", "`reasoning_content`", "not learned from"),
    Mapped("`weight`", "`weight`", "as in `chat`"),
    Mapped("`tools`", "`tools`", "a list or its JSON text; bare functions are wrapped; schemas may be JSON texts"),
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
    return chat.read({**fields, "messages": turns.messages, "tools": read_tools(without_nulls(item.get("tools")))})


def _messages(item: JsonObject) -> tuple[list[Any], int]:
    """All messages, and the number of those that are context only."""
    messages, prompt, completion = (parsed_text(item.get(name)) for name in ("messages", "prompt", "completion"))
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
    if role in _RESULTS:
        turns.result(
            content if isinstance(content, str | list) else _json_text(content),
            call_id=message.get("tool_call_id"),
            name=message.get("name"),
        )
    elif role == "assistant" or role in _CALLS:
        sent = content if role in _CALLS else message.get("tool_calls")
        weight = 0 if context else message.get("weight")
        thought = next(
            (message[key] for key in ("reasoning_content", "thinking", "reasoning") if message.get(key)), None
        )
        turns.answer(None if role in _CALLS else content, list(_calls(sent, place)), weight=weight, reasoning=thought)
    else:
        turns.say(role, content)  # type: ignore[arg-type]  # an unknown role is refused as what it is


def _calls(sent: object, place: str) -> Iterator[Call]:
    sent = parsed_text(sent)
    if sent is None:
        return
    for number, call in enumerate(sent if isinstance(sent, list) else [sent]):
        call = parsed_text(call)
        if not isinstance(call, dict):
            raise InvalidTrajectory(
                "tool_calls_malformed", f"{place}.tool_calls[{number}]: got {show(call)}; expected a call's object"
            )
        function = call["function"] if isinstance(call.get("function"), dict) else call
        arguments = function.get("arguments", function.get("parameters"))
        yield Call(function.get("name"), without_nulls(arguments), call.get("id"))


def _json_text(value: object) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)
