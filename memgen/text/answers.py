"""What a model said, read: reasoning, content and tool calls of generated text, and of an OpenAI message.

Calls are spelled `<tool_call>{"name": ..., "arguments": ...}</tool_call>`, the form of Hermes, Qwen and SmolLM2;
reasoning stands in front, as `<think>...</think>`. Whatever the text, reading it raises nothing and costs time and
memory linear in its length. Knows no template and no tokenizer.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from memgen.text.reasoning import joined_thoughts, split_reasoning

ChatMessage = dict[str, Any]

CALL_OPENING, CALL_END = "<tool_call>", "</tool_call>"
_MAX_DEPTH = 100
"""Objects and lists inside one another in a call; what is deeper stays text."""
_MAX_DIGITS = 308
"""Digits of an integer that every reader of JSON takes, those with doubles only too."""
_SPACE = re.compile(r"\s*")
_JSON_PART = re.compile(r'[{}\[\]]|[^"{}\[\]<\\]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
"""A bracket, a run outside of texts, or a text. No call goes on behind a `<` that stands outside of its texts."""
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_GAP = "\n\N{HORIZONTAL ELLIPSIS}\n"
"""Stands for a call between texts that would read as one without it: no JSON goes on over a line break in a text, nor
over an ellipsis outside."""
_BEGUN_OPENING = re.compile("<tool(?:_(?:c(?:a(?:ll?)?)?)?)?\\Z")


@dataclass(frozen=True)
class Answer:
    """An assistant turn read back from generated text."""

    content: str | None
    tool_calls: tuple[dict[str, Any], ...] = ()
    """`{"name": str, "arguments": dict}` each; writable as JSON in UTF-8, with finite numbers."""
    reasoning: str | None = None
    """What was thought before the answer; no part of the conversation."""


def parse_answer(text: str, *, calls: bool = True, opened: bool = False, cut: bool = False) -> Answer:
    """Split generated text into reasoning, content and tool calls. A malformed call stays in the content.

    An answer that is written out again, its content in front of its calls, is read as the same answer.

    Args:
        calls: whether tools were offered; if not, the content is all that is not reasoning.
        opened: the prompt ends inside of a `<think>`, which the text goes on with.
        cut: the text ends where its token limit was. Then the half of a call at its end is dropped, and where the
            prompt opened a thought that did not end, all is reasoning.
    """
    text = _HALF_CHARACTER.sub(_REPLACEMENT, text)
    thoughts, content = split_reasoning(text, opened=opened, cut=cut)
    if not calls:
        return Answer(content or None, reasoning=joined_thoughts(thoughts))
    content, found = _split_calls(content, cut=cut)
    more, content = split_reasoning(content, cut=cut)
    return Answer(content or None, tuple(found), joined_thoughts(thoughts + more))


def answer_message(answer: Answer) -> ChatMessage:
    """The answer as an OpenAI assistant message without its reasoning; the n-th call's id is `call_<n>`."""
    message: ChatMessage = {"role": "assistant", "content": answer.content or ""}
    if answer.tool_calls:
        message["tool_calls"] = [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {**call, "arguments": json.dumps(call["arguments"], ensure_ascii=False)},
            }
            for number, call in enumerate(answer.tool_calls)
        ]
    return message


def call_text(name: str, arguments: dict[str, Any]) -> str:
    return f"{CALL_OPENING}{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}{CALL_END}"


def message_calls(message: ChatMessage) -> list[dict[str, Any]]:
    """Tool calls of an OpenAI message as `{"name", "arguments"}` with parsed arguments.

    Arguments that are no object, such as half a JSON text, are shown as `{"arguments": ...}`: templates expect objects.
    """
    calls = []
    for call in message.get("tool_calls") or []:
        given = call["function"].get("arguments")
        arguments = _read_arguments(given)
        calls.append(
            {"name": call["function"]["name"], "arguments": {"arguments": given} if arguments is None else arguments}
        )
    return calls


def message_text(message: ChatMessage) -> str:
    """Text of a message whose content is a string, a list of parts with text or a refusal, or null.

    What is no text where one belongs is none: fields that nobody checked may hold anything.
    """
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, list):
        return "".join(map(_part_text, content))
    text = content or refusal
    return text if isinstance(text, str) else ""


def _part_text(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get(kind) if kind in ("text", "refusal") else None
    return text if isinstance(text, str) else ""


def _split_calls(text: str, *, cut: bool) -> tuple[str, list[dict[str, Any]]]:
    """The text without its calls, and the calls. With `cut`, without half a call at its end too."""
    calls, half = _find_calls(text, cut=cut)
    starts = [0, *(end for _, end, _ in calls)]
    ends = [*(start for start, _, _ in calls), half if cut else len(text)]
    pieces = [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    content = "\n".join(filter(None, pieces))
    if calls and _find_calls(content, cut=False)[0]:
        content = _GAP.join(filter(None, pieces))  # else what stood around a call would read as another one
    return content, [call for _, _, call in calls]


def _find_calls(text: str, *, cut: bool) -> tuple[list[tuple[int, int, dict[str, Any]]], int]:
    """Start, end and value of each whole call, and where half a call at the end begins.

    Linear: a reading that fails goes on behind its opening. It passed over a later opening only inside of a text, so a
    reading from there takes for texts what stood between them and ends at the opening after it, at the latest.
    """
    calls: list[tuple[int, int, dict[str, Any]]] = []
    at, half = 0, len(text)
    while (opening := text.find(CALL_OPENING, at)) >= 0:
        at = opening + len(CALL_OPENING)
        begin = _skip_space(text, at)
        end, unfinished = _object_end(text, begin)
        if unfinished:
            half = min(half, opening)
        behind = _call_end(text, end, cut=cut) if end else None
        if behind is not None and (call := _read_call(text[begin:end])):
            calls.append((opening, behind, call))
            at, half = behind, len(text)
    if half == len(text) and (started := _BEGUN_OPENING.search(text, max(at, len(text) - len(CALL_OPENING)))):
        half = started.start()
    return calls, half


def _object_end(text: str, begin: int) -> tuple[int, bool]:
    """Where the JSON object at `begin` ends, 0 if it does not; and whether only the end of the text is to blame."""
    if begin == len(text):
        return 0, True
    if text[begin] != "{":
        return 0, False
    at, depth = begin, 0
    while part := _JSON_PART.match(text, at):
        at, mark = part.end(), part[0]
        if mark in ("{", "["):
            depth += 1
            if depth > _MAX_DEPTH:
                return 0, False
        elif mark in ("}", "]"):
            depth -= 1
            if not depth:
                return at, False
    return 0, at == len(text) or text[at] == '"'


def _call_end(text: str, end: int, *, cut: bool) -> int | None:
    """Where the call ends whose object ends at `end`; None where something else follows."""
    behind = _skip_space(text, end)
    if text.startswith(CALL_END, behind):
        return behind + len(CALL_END)
    if behind == len(text) or text.startswith(CALL_OPENING, behind):
        return behind
    return len(text) if cut and CALL_END.startswith(text[behind : behind + len(CALL_END)]) else None


def _read_call(text: str) -> dict[str, Any] | None:
    call = _read_object(text)
    if call is None:
        return None
    name, given = call.get("name"), call.get("arguments")
    arguments = _read_arguments(call.get("parameters") if given is None else given)  # `parameters` is Llama's word
    return {"name": name, "arguments": arguments} if isinstance(name, str) and name and arguments is not None else None


def _read_arguments(given: object) -> dict[str, Any] | None:
    """Arguments given as an object, as its JSON text, or text of that text; none at all are an empty object."""
    while isinstance(given, str):
        text = given.strip()
        if text in ("", "null"):
            return {}
        given = _read_json(text) if text.startswith('"') else _read_object(text)
        if given is None:
            return None
    if given is None:
        return {}
    return given if isinstance(given, dict) else None


def _read_object(text: str) -> dict[str, Any] | None:
    value = _read_json(text) if text and _object_end(text, 0)[0] == len(text) else None
    return value if isinstance(value, dict) else None


def _read_json(text: str) -> object:
    """The value, None where it is none that can be written again. Halves of characters are replaced."""
    try:
        value: object = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    if "\\u" not in text:
        return value
    written = json.dumps(value, ensure_ascii=False)
    mended = _HALF_CHARACTER.sub(_REPLACEMENT, written)
    return value if mended == written else json.loads(mended)


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(digits)
    return number


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(digits)
    return int(digits)


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _skip_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


_DECODER = json.JSONDecoder(parse_float=_finite, parse_int=_integer, parse_constant=_refuse)
