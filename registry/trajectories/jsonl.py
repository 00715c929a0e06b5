"""Splitter of bytes into numbered lines. Knows nothing of what a line holds.

Memory stays bounded whatever is sent: a line that is too long is skipped to its end instead of being kept.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"
_NEWLINES = re.compile(rb"\n+")


@dataclass(frozen=True, slots=True)
class JsonLine:
    number: int
    """Line number from 1, where blank lines are counted but not returned; of a document, its place in the file."""
    data: bytes | None
    """Bytes of the line without the newline; None if it is longer than the limit."""


class LineSplitter:
    """Takes bytes by `feed` and returns lines as they become complete; `finish` returns the last one."""

    unit = "line"
    cut = False

    def __init__(self, max_line_bytes: int, number: int = 0) -> None:
        self.max_line_bytes = max_line_bytes
        self.number = number
        """Lines ended so far."""
        self._line = bytearray()
        self._too_long = False

    def feed(self, piece: bytes) -> Iterator[JsonLine]:
        """Lines that `piece` completes."""
        start = self._skip_blank(piece, 0)
        while (end := piece.find(b"\n", start)) >= 0:
            self._keep(piece[start:end])
            yield from self._end_line()
            start = self._skip_blank(piece, end + 1)
        self._keep(piece[start:])

    def finish(self) -> Iterator[JsonLine]:
        """The last line, if no newline ended it."""
        if self._line or self._too_long:
            yield from self._end_line()

    def _skip_blank(self, piece: bytes, start: int) -> int:
        """Count the empty lines from `start` on, together: a file of nothing else holds very many."""
        if self._line or self._too_long or (blank := _NEWLINES.match(piece, start)) is None:
            return start
        self.number += blank.end() - start
        return blank.end()

    def _keep(self, part: bytes) -> None:
        if len(self._line) + len(part) > self.max_line_bytes:
            self._too_long = True
            self._line.clear()
        if not self._too_long:
            self._line += part

    def _end_line(self) -> Iterator[JsonLine]:
        self.number += 1
        # Also of later lines: where files were put together, each brought its own.
        data = bytes(self._line).removeprefix(_BOM)
        if self._too_long:
            yield JsonLine(self.number, None)
        elif data.strip():
            yield JsonLine(self.number, data)
        self._line.clear()
        self._too_long = False
