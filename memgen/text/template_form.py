"""A conversation in the form that a base's template takes. Pure: renders nothing.

What a template can't write is spelled in messages that it can: tools as patterns of their calls in the system message
(`memgen.text.tool_calls`), calls as `<tool_call>{"name": ..., "arguments": ...}</tool_call>`, the form of Hermes, Qwen
and SmolLM2, and results as `<tool_response>` of a user.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from memgen.text.answers import ChatMessage, message_calls, message_text
from memgen.text.calls import call_text
from memgen.text.tool_calls import tool_pattern

SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True)
class TemplateForm:
    """What a template writes itself."""

    system: str | None = "system"
    """The role under which it writes instructions that stand first; None: they join the first message of a user."""
    later_system: bool = True
    """It writes system messages behind the first one; else they are a user's."""
    system_alone: bool = True
    """It writes a system message that nothing follows; else an empty message of a user does."""
    neighbours: bool = True
    """Messages of one role may follow one another; else they are joined."""
    tools: bool = False
    """It lists tools."""
    calls: bool = False
    """It writes calls, so that they can be read back, and their results."""
    arguments_as_text: bool = False
    """It wants a call's arguments as JSON text, not as an object."""
    tags_are_text: bool = False
    """`<tool_call>` is a special token of the tokenizer, which reading back drops: it is written letter by letter."""


PLAINEST = TemplateForm(system=None, later_system=False, neighbours=False)
"""What every template takes that takes a chat at all: users and assistants by turns, a user first."""


def conform(
    messages: Sequence[ChatMessage], tools: Sequence[ChatMessage] | None, form: TemplateForm
) -> tuple[list[ChatMessage], list[ChatMessage] | None]:
    """(messages, tools) to render; `tools` is None where they were spelled.

    Each message comes out with `role` and `content`, a string; calls and results of a template that writes them have
    ids of nine letters and digits, as some demand. Other fields, a past turn's reasoning too, are not shown.
    """
    conformed = _with_native_calls(messages, form) if form.calls else [_spell(message) for message in messages]
    if tools and not form.tools:
        listing = "\n".join(tool_pattern(tool["function"]) for tool in tools)
        conformed = _instructed(conformed, f"You can call these functions:\n{listing}")
        tools = None
    conformed = _place_system(conformed, form)
    if not form.neighbours:
        conformed = _join_neighbours(conformed)
    if replace(form, tags_are_text=False) == PLAINEST and conformed[:1] and conformed[0]["role"] != "user":
        conformed.insert(0, {"role": "user", "content": ""})
    if not form.system_alone and all(message["role"] == form.system for message in conformed):
        conformed.append({"role": "user", "content": ""})
    return conformed, list(tools) if tools else None


def plain_message(message: ChatMessage) -> ChatMessage:
    """What of an OpenAI message is shown to a model: its content as one text, arguments of its calls as objects."""
    seen: ChatMessage = {"role": message["role"], "content": message_text(message)}
    calls = message_calls(message)
    if calls:
        given = message.get("tool_calls") or []
        ids = [call.get("id") if isinstance(call, dict) else None for call in given]
        ids += [None] * (len(calls) - len(ids))
        seen["tool_calls"] = [
            {"id": call_id, "type": "function", "function": call} for call_id, call in zip(ids, calls, strict=False)
        ]
    return {**seen, **{key: message[key] for key in ("tool_call_id", "name") if message.get(key)}}


def spelled_calls(message: ChatMessage) -> str:
    """Content and calls of an assistant's turn as one text."""
    calls = "\n".join(call_text(call["name"], call["arguments"]) for call in message_calls(message))
    return "\n".join(part for part in (message_text(message), calls) if part)


def _spell(message: ChatMessage) -> ChatMessage:
    role = message["role"]
    if role in ("tool", "function"):
        return {"role": "user", "content": f"<tool_response>{message_text(message)}</tool_response>"}
    return {"role": "system" if role in SYSTEM_ROLES else role, "content": spelled_calls(message)}


def _with_native_calls(messages: Sequence[ChatMessage], form: TemplateForm) -> list[ChatMessage]:
    conformed: list[ChatMessage] = []
    known: dict[Any, tuple[str, str]] = {}
    number = 0
    answering = False
    for message in messages:
        role, text = message["role"], message_text(message)
        if role in ("tool", "function"):
            if not answering:  # some templates drop a result that stands behind no call, or refuse it
                conformed.append(_spell(message))
                continue
            call_id, name = known.get(message.get("tool_call_id"), (_call_id(number), message.get("name") or ""))
            result = {"role": "tool", "tool_call_id": call_id, "content": text}
            conformed.append({**result, "name": name} if name else result)
            continue
        shown: ChatMessage = {"role": "system" if role in SYSTEM_ROLES else role, "content": text}
        given = message.get("tool_calls") or []
        calls = []
        for place, call in enumerate(message_calls(message)):
            call_id, number = _call_id(number), number + 1
            if place < len(given) and isinstance(given[place], dict):
                known[given[place].get("id")] = call_id, call["name"]
            arguments = call["arguments"]
            function = {
                "name": call["name"],
                "arguments": json.dumps(arguments, ensure_ascii=False) if form.arguments_as_text else arguments,
            }
            calls.append({"id": call_id, "type": "function", "function": function})
        answering = bool(calls)
        if calls:
            shown["tool_calls"] = calls
        conformed.append(shown)
    return conformed


def _call_id(number: int) -> str:
    return f"call{number % 100_000:05d}"


def _instructed(messages: list[ChatMessage], text: str) -> list[ChatMessage]:
    """The messages with `text` at the end of the system message that stands first."""
    if messages and messages[0]["role"] == "system":
        return [{"role": "system", "content": _joined(messages[0]["content"], text)}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _place_system(messages: list[ChatMessage], form: TemplateForm) -> list[ChatMessage]:
    first = [m for m in messages[:1] if m["role"] == "system"]
    later = messages[len(first) :]
    if not form.later_system:
        # Directly behind the first one they say the same thing at the same place.
        while first and later and later[0]["role"] == "system":
            first = [{"role": "system", "content": _joined(first[0]["content"], later[0]["content"])}]
            later = later[1:]
        later = [{**m, "role": "user"} if m["role"] == "system" else m for m in later]
    if form.system:
        return [{**m, "role": form.system} for m in first] + later
    if not first:
        return later
    text = first[0]["content"]
    if later and later[0]["role"] == "user":
        return [{**later[0], "content": _joined(text, later[0]["content"])}, *later[1:]]
    return [{"role": "user", "content": text}, *later]


def _join_neighbours(messages: list[ChatMessage]) -> list[ChatMessage]:
    """Messages of one role that follow one another as one; calls and their results stay as they are."""
    joined: list[tuple[ChatMessage, list[str]]] = []
    for message in messages:
        last = joined[-1][0] if joined else None
        plain = message["role"] != "tool" and not message.get("tool_calls")
        if last is not None and plain and last["role"] == message["role"] and not last.get("tool_calls"):
            joined[-1][1].append(message["content"])
        else:
            joined.append((message, [message["content"]]))
    return [{**message, "content": _joined(*texts)} for message, texts in joined]


def _joined(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text)
