"""Splitter of OTLP files in protobuf: one message, or messages with their lengths in front, as collectors write."""

from collections.abc import Iterator

from registry.trajectories.jsonl import JsonLine

_RESOURCE_SPANS = 0x0A
"""First byte of a message: field 1, whose length follows."""
_LENGTH_BYTES = 4
_LONGEST_VARINT = 10
_SPACES = b" \t\r\n"


def looks_like_json(data: bytes) -> bool:
    """Whether a file that begins so is JSON. A message's first byte is a newline in ASCII, too, but no `{` follows it
    that is the beginning of an object."""
    text = data.removeprefix(b"\xef\xbb\xbf").lstrip(_SPACES)
    if data[:1] != bytes([_RESOURCE_SPANS]):
        return data[:1] != b"\0"
    # Behind the newline of a message stand its length and another tag; of a text, spaces, a bracket, and a quote.
    return text[:1] in (b"{", b"[") and text[1:].lstrip(_SPACES)[:1] in (b'"', b"{", b"[", b"}", b"]", b"")


class ProtobufSplitter:
    """Takes bytes by `feed` and returns messages of one `ResourceSpans` each, or whole ones with a length in front."""

    unit = "message"

    def __init__(self, max_bytes: int) -> None:
        self.number = 0
        self.cut = False
        self._max = max_bytes
        self._buffer = bytearray()
        self._skip = 0
        """Bytes of a message that is too long, still to come."""
        self._framed: bool | None = None
        self._broken = False

    def feed(self, piece: bytes) -> Iterator[JsonLine]:
        self._buffer += piece
        if self._framed is None and self._buffer:
            self._framed = self._buffer[0] == 0
        start = 0
        while not self._broken:
            if self._skip:
                skipped = min(self._skip, len(self._buffer) - start)
                start, self._skip = start + skipped, self._skip - skipped
            found = self._next(start)
            if found is None:
                break
            body, length, behind = found
            if length > self._max:
                self.number += 1
                self._skip, start = length, behind
                yield JsonLine(self.number, None)
                continue
            if len(self._buffer) - behind < length:
                break
            self.number += 1
            start = behind + length
            yield JsonLine(self.number, bytes(self._buffer[body:start]))
        del self._buffer[: len(self._buffer) if self._broken else start]

    def finish(self) -> Iterator[JsonLine]:
        if self._buffer and not self._broken:
            self.number += 1
            yield JsonLine(self.number, bytes(self._buffer))  # cut off: refused as what it is

    def _next(self, start: int) -> tuple[int, int, int] | None:
        """(where the message begins, length of its rest, where that begins); None if more has to come."""
        buffer = self._buffer
        if self._framed:
            if len(buffer) - start < _LENGTH_BYTES:
                return None
            behind = start + _LENGTH_BYTES
            return behind, int.from_bytes(buffer[start:behind], "big"), behind
        if len(buffer) == start:
            return None
        if buffer[start] != _RESOURCE_SPANS:
            # No message of spans: what follows has no places to cut at, and is refused as one.
            return self._rest(start)
        length, shift = 0, 0
        for place in range(start + 1, min(len(buffer), start + 1 + _LONGEST_VARINT)):
            length |= (buffer[place] & 0x7F) << shift
            shift += 7
            if not buffer[place] & 0x80:
                return start, length, place + 1
        return None if len(buffer) - start <= _LONGEST_VARINT else self._rest(start)

    def _rest(self, start: int) -> tuple[int, int, int]:
        self._broken = True
        return start, len(self._buffer) - start, start
