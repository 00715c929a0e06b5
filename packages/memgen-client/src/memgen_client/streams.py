"""Streams as they come over the wire, without any waiting: lines, server-sent events, chunks of an answer."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from memgen_client.errors import UnexpectedReply
from memgen_client.json_values import JsonObject
from memgen_client.refusals import refusal_in_stream

_END = "[DONE]"


@dataclass(frozen=True)
class ServerSentEvent:
    id: int
    """0 where it has none."""
    kind: str
    data: JsonObject


class Lines:
    """The lines of a stream, which end at a newline and nowhere else: httpx also cuts at U+2028 and its like, which
    JSON holds as they are. What follows the last newline is no line: the stream broke off."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []

    def feed(self, block: bytes) -> Iterator[str]:
        first, *others = block.split(b"\n")
        self._begun.append(first)
        for other in others:
            yield b"".join(self._begun).removesuffix(b"\r").decode(errors="replace")
            self._begun = [other]


class Events:
    """Server-sent events out of lines."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def feed(self, line: str) -> ServerSentEvent | None:
        """The event that the line ends; None where it ends none."""
        if line:
            name, _, value = line.partition(":")
            self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        number = fields.get("id", "0")
        return ServerSentEvent(
            int(number) if number.isdecimal() else 0, fields.get("event", "message"), as_object(fields["data"])
        )


class AnswerChunks:
    """Chunks of an answer in OpenAI's stream format, out of lines."""

    def __init__(self) -> None:
        self.has_ended = False
        """Whether the end was said; a stream that only stops has broken off."""

    def feed(self, line: str) -> JsonObject | None:
        """Raises ApiError: the service failed in the middle."""
        name, _, data = line.partition(": ")
        if name != "data" or self.has_ended:
            return None
        if data == _END:
            self.has_ended = True
            return None
        chunk = as_object(data)
        if "error" in chunk:
            raise refusal_in_stream(chunk["error"])
        return chunk


def as_object(text: str) -> JsonObject:
    """Raises UnexpectedReply: it is no JSON object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnexpectedReply(f"a stream of the service has {text[:60]!r}; expected JSON") from error
    if not isinstance(found, dict):
        raise UnexpectedReply(f"a stream of the service has {text[:60]!r}; expected a JSON object")
    return found
