"""Bodies that are sent as they are read: files, and trajectories from anywhere. Nothing is held in memory whole."""

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from anyio import to_thread

from memgen_client.json_values import Json

Trajectories: TypeAlias = str | Path | Iterable[Json] | AsyncIterable[Json]
"""A file, or trajectories one after the other; asynchronous ones for the asynchronous client only."""
OnProgress: TypeAlias = Callable[[int, int | None], None]
"""Called after each block with the bytes sent so far and the bytes in all; None where that is not known."""

_BLOCK_BYTES = 65_536


@dataclass(frozen=True)
class Content:
    """What to send. A file can be sent again from its beginning; what comes from an iterable is gone."""

    source: Path | Iterable[Json] | AsyncIterable[Json]
    on_progress: OnProgress | None = None

    @classmethod
    def of(cls, source: Trajectories, on_progress: OnProgress | None) -> "Content":
        return cls(Path(source) if isinstance(source, str) else source, on_progress)

    @property
    def can_restart(self) -> bool:
        return isinstance(self.source, Path)

    def blocks(self) -> Iterator[bytes]:
        """Raises TypeError: the source is asynchronous."""
        total, sent = self._total(), 0
        for block in self._blocks():
            yield block
            sent += len(block)  # it was sent once the next one is asked for
            self._tell(sent, total)

    async def blocks_async(self) -> AsyncIterator[bytes]:
        """The same; a file is read in a thread."""
        total, sent = self._total(), 0
        async for block in self._blocks_async():
            yield block
            sent += len(block)
            self._tell(sent, total)

    async def _blocks_async(self) -> AsyncIterator[bytes]:
        if isinstance(self.source, AsyncIterable):
            gathering = _Gathering()
            async for item in self.source:
                if block := gathering.add(item):
                    yield block
            if rest := gathering.rest():
                yield rest
            return
        blocks = self._blocks()
        if isinstance(self.source, Path):
            while block := await to_thread.run_sync(next, blocks, b""):
                yield block
            return
        for block in blocks:  # whose it is, may not be asked from another thread
            yield block

    def _blocks(self) -> Iterator[bytes]:
        if isinstance(self.source, Path):
            with self.source.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    yield block
            return
        if isinstance(self.source, AsyncIterable):
            raise TypeError("the trajectories come from an asynchronous iterable; send them with AsyncClient")
        gathering = _Gathering()
        for item in self.source:
            if block := gathering.add(item):
                yield block
        if rest := gathering.rest():
            yield rest

    def _total(self) -> int | None:
        return self.source.stat().st_size if isinstance(self.source, Path) else None

    def _tell(self, sent: int, total: int | None) -> None:
        if self.on_progress is not None:
            self.on_progress(sent, total)


class _Gathering:
    """JSON lines, gathered to blocks."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def add(self, item: Json) -> bytes:
        """A whole block, or nothing yet."""
        self._waiting += json.dumps(dict(item)).encode() + b"\n"
        return self.rest() if len(self._waiting) >= _BLOCK_BYTES else b""

    def rest(self) -> bytes:
        block = bytes(self._waiting)
        self._waiting.clear()
        return block
