"""Unpacking of a stream of bytes that may be gzip, piece by piece. Knows nothing of what the bytes hold."""

import zlib
from collections.abc import Iterator

_GZIP_MAGIC = b"\x1f\x8b"
_PIECE_BYTES = 65_536


class Unpacker:
    """Takes chunks by `feed` and returns what they unpack to, in short pieces: a bomb is never held in memory.

    Whether the stream is gzip is decided by its first two bytes, which neither JSON nor OTLP starts with: headers lie
    more often than bytes do. `stopped` says why unpacking ended early; pieces returned before remain good.
    """

    def __init__(self) -> None:
        self.stopped: str | None = None
        self._start: bytes | None = b""
        """Bytes before it is known whether this is gzip; None once it is known."""
        self._gzip = False
        self._inflate: zlib._Decompress | None = None
        """The gzip member being read; None between members."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What `chunk` unpacks to."""
        if self._start is not None:
            chunk = self._start + chunk
            if len(chunk) < len(_GZIP_MAGIC):
                self._start = chunk
                return
            self._start = None
            self._gzip = chunk.startswith(_GZIP_MAGIC)
        if not self._gzip:
            yield chunk
            return
        # In short pieces: what a piece leaves unread is copied each time some of it is unpacked.
        for start in range(0, len(chunk), _PIECE_BYTES):
            yield from self._unpack(chunk[start : start + _PIECE_BYTES])

    def finish(self) -> Iterator[bytes]:
        """What was too short to be told from gzip. Sets `stopped` if a gzip member has no end."""
        if self._start:
            yield self._start
        if self._inflate is not None and self.stopped is None:
            self.stopped = "the gzip data ends before its end mark: the file was cut short"

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
                self.stopped = f"the gzip data is damaged ({error})"
                return
            yield piece
            chunk = self._inflate.unconsumed_tail
            if self._inflate.eof:
                chunk, self._inflate = self._inflate.unused_data, None
            elif not chunk and len(piece) < _PIECE_BYTES:
                return
