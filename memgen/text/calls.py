"""Calls in generated text: `<tool_call>{"name": ..., "arguments": ...}</tool_call>`, whole ones and halves.

Whatever the text, reading it raises nothing and costs time and memory linear in its length.
"""

import json
import math
import re
from typing import Any, NoReturn

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
_BEGUN_OPENING = re.compile("<tool(?:_(?:c(?:a(?:ll?)?)?)?)?\\Z")


def call_text(name: str, arguments: dict[str, Any]) -> str:
    return f"{CALL_OPENING}{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}{CALL_END}"


def whole_characters(text: str) -> str:
    """The text with halves of characters replaced, which can't be written in UTF-8."""
    return _HALF_CHARACTER.sub(_REPLACEMENT, text)


def find_calls(text: str, *, cut: bool) -> tuple[list[tuple[int, int, dict[str, Any]]], int]:
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


class CallStream:
    """Tells an answer's pieces apart as `find_calls` does its whole text.

    The content that it returns is a beginning of what stands in front of the first call, without space around it;
    calls come whole, as soon as nothing that follows can change them. What it holds back at the end is for who has
    read the whole to add.
    """

    def __init__(self) -> None:
        self._held = ""
        """Text that is not certain yet."""
        self._from = 0
        """Where in it openings are looked for: behind those that begin no call."""
        self._begun = self._called = False
        """Whether content was returned, and whether a call was."""

    def push(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """(content, calls) that have become certain."""
        waiting = self._held.startswith(CALL_OPENING, self._from)
        self._held += text
        if waiting and ">" not in text:  # neither the call's end nor another's beginning
            return "", []
        content = ""
        calls: list[dict[str, Any]] = []
        while (opening := self._held.find(CALL_OPENING, self._from)) >= 0:
            content += self._release(opening)
            self._from = opening = self._held.find(CALL_OPENING, self._from)
            behind, call = _whole_call(self._held, opening)
            if behind < 0:
                return content, calls
            if call is None:
                self._from = opening + len(CALL_OPENING)
                continue
            calls.append(call)
            self._held, self._from, self._called = self._held[behind:], 0, True
        longest = min(len(self._held) - self._from, len(CALL_OPENING) - 1)
        begun = next((n for n in range(longest, 0, -1) if self._held.endswith(CALL_OPENING[:n])), 0)
        return content + self._release(len(self._held) - begun), calls

    def _release(self, end: int) -> str:
        """Take what may be returned of the held text's beginning: all but space, at the content's two ends."""
        if self._called:
            released, kept = "", end
        else:
            released = self._held[:end].rstrip()
            kept = len(released)
            released = released if self._begun else released.lstrip()
            self._begun = self._begun or bool(released)
        self._held, self._from = self._held[kept:], max(self._from - kept, 0)
        return released


def _whole_call(text: str, opening: int) -> tuple[int, dict[str, Any] | None]:
    """Where the call that opens there ends, and the call; -1 while that is open, and None where it is none."""
    begin = _skip_space(text, opening + len(CALL_OPENING))
    end, unfinished = _object_end(text, begin)
    if unfinished:
        return -1, None
    behind = _skip_space(text, end)
    follows = next((mark for mark in (CALL_END, CALL_OPENING) if text.startswith(mark, behind)), None)
    if (
        end
        and follows is None
        and any(mark.startswith(text[behind : behind + len(mark)]) for mark in (CALL_END, CALL_OPENING))
    ):
        return -1, None
    call = _read_call(text[begin:end]) if follows is not None and end else None
    return behind + (len(CALL_END) if follows == CALL_END else 0), call


def _may_begin_mark(text: str) -> bool:
    return any(mark.startswith(text[: len(mark)]) for mark in (CALL_END, CALL_OPENING))


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
    arguments = read_arguments(call.get("parameters") if given is None else given)  # `parameters` is Llama's word
    return {"name": name, "arguments": arguments} if isinstance(name, str) and name and arguments is not None else None


def read_arguments(given: object) -> dict[str, Any] | None:
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
    mended = whole_characters(written)
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
