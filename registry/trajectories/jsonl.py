"""Reader of a stream of bytes, plain or gzip, as numbered JSONL lines. Knows nothing of what a line holds.

Memory stays bounded whatever is sent: decompression goes piece by piece, and a line that is too long is
skipped to its end instead of being kept.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_PIECE_BYTES = 65_536
_NEWLINES = re.compile(rb"\n+")


@dataclass(frozen=True, slots=True)
class JsonLine:
    number: int
    """Line number from 1; blank lines are counted, but not returned."""
    data: bytes | None
    """Bytes of the line without the newline; None if it is longer than the limit."""


class LineReader:
    """Takes chunks by `feed` and returns lines as they become complete; `finish` returns the last one.

    Whether the stream is gzip is decided by its first two bytes, which no JSON text starts with: headers lie
    more often than bytes do. `stopped` says why reading ended early; lines returned before remain good.
    """

    def __init__(self, max_line_bytes: int) -> None:
        self.max_line_bytes = max_line_bytes
        self.number = 0
        """Lines ended so far."""
        self.stopped: str | None = None
        self._start: bytes | None = b""
        """Bytes before it is known whether this is gzip; None once it is known."""
        self._gzip = False
        self._inflate: zlib._Decompress | None = None
        """The gzip member being read; None between members."""
        self._line = bytearray()
        self._too_long = False

    def feed(self, chunk: bytes) -> Iterator[JsonLine]:
        """Lines that `chunk` completes."""
        if self._start is not None:
            chunk = self._start + chunk
            if len(chunk) < len(_GZIP_MAGIC):
                self._start = chunk
                return
            self._start = None
            self._gzip = chunk.startswith(_GZIP_MAGIC)
        if not self._gzip:
            yield from self._split(chunk)
            return
        # In short pieces: what a piece leaves unread is copied each time some of it is unpacked.
        for start in range(0, len(chunk), _PIECE_BYTES):
            for piece in self._unpack(chunk[start : start + _PIECE_BYTES]):
                yield from self._split(piece)

    def finish(self) -> Iterator[JsonLine]:
        """The last line, if no newline ended it. A broken stream ends in a fragment, which is not returned."""
        if self._start:
            yield from self._split(self._start)
        if self._inflate is not None and self.stopped is None:
            self._stop("the gzip data ends before its end mark: the file was cut short")
        if self.stopped is None and (self._line or self._too_long):
            yield from self._end_line()

    def _unpack(self, chunk: bytes) -> Iterator[bytes]:
        while True:
            if self.stopped is not None:
                return
            if self._inflate is None:
                chunk = chunk.lstrip(b"\0")  # padding between members, as tapes leave it
                if not chunk:
                    return
                self._inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            try:
                piece = self._inflate.decompress(chunk, _PIECE_BYTES)
            except zlib.error as error:
                self._stop(f"the gzip data is damaged ({error})")
                return
            yield piece
            chunk = self._inflate.unconsumed_tail
            if self._inflate.eof:
                chunk, self._inflate = self._inflate.unused_data, None
            elif not chunk and len(piece) < _PIECE_BYTES:
                return

    def _split(self, piece: bytes) -> Iterator[JsonLine]:
        start = self._skip_blank(piece, 0)
        while (end := piece.find(b"\n", start)) >= 0:
            self._keep(piece[start:end])
            yield from self._end_line()
            start = self._skip_blank(piece, end + 1)
        self._keep(piece[start:])

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

    def _stop(self, reason: str) -> None:
        self.stopped = (
            f"{reason}; read up to line {self.number}. What was accepted is kept: send the whole file again, "
            "and only what is missing is added."
        )
