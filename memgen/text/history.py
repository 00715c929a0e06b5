"""Messages as chat templates know them, from whatever providers and their clients write into a conversation."""

import json
from collections.abc import Sequence
from typing import Any

from memgen.text.answers import ChatMessage, message_text

_NAMES = ("tool_call_id", "name")
"""Fields that templates show. They may hold anything where nobody checked them; what is no text is left out."""


def unified_messages(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The same conversation, with texts for contents, and one form of calls and results.

    Calls have an id, the type `function`, and a function with name and arguments as they were given; also those of
    custom tools (their text is the argument `input`) and OpenAI's older `function_call`, whose result, of the role
    `function`, becomes one of the role `tool`. Empty lists of calls, and nulls for them, are left out.
    """
    called: dict[str, str] = {}
    """The last call's id by the function's name."""
    plain = []
    for number, message in enumerate(messages):
        calls = _calls(message, number)
        called |= {call["function"]["name"]: call["id"] for call in calls}
        kept = {
            key: value
            for key, value in message.items()
            if key not in ("tool_calls", "function_call") and (isinstance(value, str) or key not in _NAMES)
        }
        kept["content"] = message_text(message)
        if message["role"] == "function":
            name = str(message.get("name") or "")
            kept |= {"role": "tool", "tool_call_id": called.get(name, name)}
        if calls:
            kept["tool_calls"] = calls
        plain.append(kept)
    return plain


def _calls(message: ChatMessage, number: int) -> list[dict[str, Any]]:
    made, older = list(message.get("tool_calls") or ()), message.get("function_call")
    if message["role"] == "assistant" and isinstance(older, dict) and isinstance(older.get("name"), str):
        made.append({"function": older})
    return [_call(call, f"call_{number}_{place}") for place, call in enumerate(made)]


def _call(call: dict[str, Any], default_id: str) -> dict[str, Any]:
    if call.get("type") == "custom":
        name, arguments = call["custom"]["name"], json.dumps({"input": call["custom"].get("input")}, ensure_ascii=False)
    else:
        name, arguments = call["function"]["name"], call["function"].get("arguments")
    known = call.get("id")
    call_id = known if isinstance(known, str) and known else default_id
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
