"""Server-sent events as they come over the wire, cut at their ends and nowhere else. Pure.

Each is kept as its bytes: what is passed through stays as it was sent. Only the id of an answer is exchanged in it.
"""

import json
import re
from collections.abc import Iterator

from api.http.json_object import JsonObject

MOST_EVENT_BYTES = 4_000_000
DONE = b"[DONE]"
_FIELDS = (b"data", b"event", b"id", b"retry")
_ID = re.compile(rb'"id"\s*:\s*("(?:[^"\\]|\\.)*+")')


class NoEvent(Exception):
    """What came is no server-sent event, or one without end."""


class EventCutter:
    """Cuts the bytes of a stream into events, each with the blank line that ends it."""

    def __init__(self) -> None:
        self._event = bytearray()
        self._line = bytearray()

    def push(self, data: bytes) -> Iterator[bytes]:
        """Raises NoEvent."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._line += line
            self._event += self._line + b"\n"
            blank = not self._line.removesuffix(b"\r")
            self._line.clear()
            if blank:
                event = bytes(self._event)
                self._event.clear()
                yield event
            elif len(self._event) > MOST_EVENT_BYTES:
                raise NoEvent(f"an event is longer than {MOST_EVENT_BYTES} bytes")
        self._line += rest
        if len(self._line) > MOST_EVENT_BYTES:
            raise NoEvent(f"a line is longer than {MOST_EVENT_BYTES} bytes")

    def rest(self) -> bytes:
        """What is missing to make an event of what is left at the end of a stream, where something is left: some
        servers leave out the last blank line."""
        return b"\n\n" if self._event or self._line else b""


def data_of(event: bytes) -> bytes | None:
    """The data of an event, or None for a comment.

    Raises:
        NoEvent: a line of it is no field of an event.
    """
    found: list[bytes] = []
    for raw in event.split(b"\n"):
        line = raw.removesuffix(b"\r")
        name, _, value = line.partition(b":")
        if name == b"data":
            found.append(value.removeprefix(b" "))
        elif name and name not in _FIELDS:
            raise NoEvent(f"a line is no field of an event: {line[:80]!r}")
    return b"\n".join(found) if found else None


def with_id(event: bytes, chunk: JsonObject, new_id: str) -> bytes:
    """The event of a chunk with another id of the answer; everything else as it was sent."""
    old = chunk.get("id")
    if isinstance(old, str):
        for match in _ID.finditer(event):
            # Quotes inside a text are escaped, so this is a member; a call's id is another one.
            if json.loads(match[1]) == old:
                return event[: match.start(1)] + json.dumps(new_id).encode() + event[match.end(1) :]
    return b"data: " + json.dumps({**chunk, "id": new_id}, separators=(",", ":")).encode() + b"\n\n"
