"""An upstream's answer, put together from the chunks of a stream or read from a whole reply. Pure.

Servers differ in how they spell deltas: calls without an index, or all with index 0; arguments as objects; what was
thought as `reasoning` or `reasoning_content`. What can't be read as text and calls is passed on, but no answer to
learn from.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.http.json_object import JsonObject

_MOST_CHOICES = 128
_MOST_CALLS = 1024

Hide = Callable[[str], str]


@dataclass(frozen=True)
class UpstreamChoice:
    index: int
    message: JsonObject
    """The assistant's message, in OpenAI's shape."""
    finish_reason: str


@dataclass(frozen=True)
class UpstreamAnswer:
    choices: Sequence[UpstreamChoice]
    usage: JsonObject
    is_readable: bool
    """Whether all of it is text and calls, and each choice said why it ended."""


@dataclass
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def whole(self, hide: Hide) -> JsonObject:
        function = {"name": self.name, "arguments": hide("".join(self.arguments))}
        return {"id": self.id, "type": "function", "function": function}


class _Choice:
    """One answer, as far as it has come."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.is_readable = True
        self._texts: dict[str, list[str]] = {"content": [], "reasoning_content": [], "refusal": []}
        self._calls: dict[int, _Call] = {}
        self._at = 0

    def add(self, delta: JsonObject) -> None:
        self._add_text("content", delta.get("content"))
        thought = delta.get("reasoning_content")
        self._add_text("reasoning_content", thought if thought is not None else delta.get("reasoning"))
        self._add_text("refusal", delta.get("refusal"))
        if delta.get("function_call") or delta.get("audio"):
            self.is_readable = False
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            for call in calls:
                self._add_call(call)
        elif calls:
            self.is_readable = False

    def message(self, hide: Hide) -> JsonObject:
        texts = {name: hide("".join(parts)) for name, parts in self._texts.items()}
        message: JsonObject = {"role": "assistant", "content": texts.pop("content") or None}
        message |= {name: text for name, text in texts.items() if text}
        if self._calls:
            message["tool_calls"] = [call.whole(hide) for call in self._calls.values()]
        return message

    def _add_text(self, name: str, text: Any) -> None:
        if isinstance(text, list):
            parts: list[Any] = [part.get("text") if isinstance(part, dict) else part for part in text]
            text = "".join(parts) if all(isinstance(part, str) for part in parts) else text
        if isinstance(text, str):
            self._texts[name].append(text)
        elif text is not None:
            self.is_readable = False

    def _add_call(self, delta: Any) -> None:
        if not isinstance(delta, dict) or delta.get("type") not in (None, "", "function"):
            self.is_readable = False
            return
        call = self._call_of(delta.get("index"), delta.get("id"))
        function = delta.get("function")
        if not isinstance(function, dict) or call is None:
            self.is_readable = False
            return
        name, arguments = function.get("name"), function.get("arguments")
        if isinstance(name, str) and name != call.name:
            call.name += name
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments)
        if isinstance(arguments, str):
            call.arguments.append(arguments)

    def _call_of(self, index: Any, call_id: Any) -> _Call | None:
        """The call that a delta goes on with, or a new one. None if there are too many."""
        named = call_id if isinstance(call_id, str) else ""
        if isinstance(index, int):
            found = self._calls.get(index)
            if found is not None and named and found.id and named != found.id:
                found = None  # another call under the same index: it is another call
                index = max(self._calls) + 1
        else:
            found = self._calls.get(self._at) if not named or self._has(named) else None
            index = self._at if found is not None else len(self._calls)
        if found is None:
            if len(self._calls) >= _MOST_CALLS:
                return None
            found = self._calls[index] = _Call()
        self._at = index
        found.id = found.id or named
        return found

    def _has(self, call_id: str) -> bool:
        return self._at in self._calls and self._calls[self._at].id == call_id


class AnswerParts:
    """The answers of one streamed reply, as far as they have come."""

    def __init__(self, hide: Hide) -> None:
        """
        Args:
            hide: takes what may not be recorded out of a whole text, of which its pieces may show nothing.
        """
        self._hide = hide
        self._choices: dict[int, _Choice] = {}
        self._usage: JsonObject = {}
        self._is_readable = True

    def add(self, chunk: JsonObject) -> None:
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = usage
        choices = chunk.get("choices")
        for place, choice in enumerate(choices if isinstance(choices, list) else ()):
            if isinstance(choice, dict):
                self._add_choice(choice, choice.get("index", place), choice.get("delta"))

    def add_whole(self, reply: JsonObject) -> None:
        """A reply that is no stream's; its messages are read as one delta each."""
        if isinstance(usage := reply.get("usage"), dict):
            self._usage = usage
        for place, choice in enumerate(reply["choices"]):
            self._add_choice(choice, choice.get("index", place), choice.get("message"))

    @property
    def is_empty(self) -> bool:
        return not self._choices

    @property
    def is_whole(self) -> bool:
        """Whether there are answers, and each has said why it ended."""
        return bool(self._choices) and all(choice.finish_reason is not None for choice in self._choices.values())

    def answer(self) -> UpstreamAnswer:
        choices = [
            UpstreamChoice(index, choice.message(self._hide), choice.finish_reason or "")
            for index, choice in sorted(self._choices.items())
        ]
        is_readable = (
            self._is_readable and self.is_whole and all(choice.is_readable for choice in self._choices.values())
        )
        return UpstreamAnswer(choices, self._usage, is_readable)

    def _add_choice(self, choice: JsonObject, index: Any, delta: Any) -> None:
        if not isinstance(index, int) or (index not in self._choices and len(self._choices) >= _MOST_CHOICES):
            self._is_readable = False
            return
        found = self._choices.setdefault(index, _Choice())
        if isinstance(delta, dict):
            found.add(delta)
        if isinstance(reason := choice.get("finish_reason"), str) and reason:
            found.finish_reason = reason
