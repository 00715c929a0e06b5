"""A chat request on its way: asked by a task of an event loop, answered by the thread that owns the model."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.inference.token_texts import TokenText
from memgen.generation.requests import Generation
from memgen.generation.sampling import Sampling


@dataclass(frozen=True)
class MemorySource:
    """Where a version's artifact comes from."""

    name: str
    manifest_sha256: str
    fetch: Callable[[Path], None]
    fetch_other: Callable[[str, Path], None] | None = None
    """Fills a folder with the artifact of a manifest hash that this one refers to, as one of a task among several."""


@dataclass(frozen=True)
class ChatRequest:
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    samplings: tuple[Sampling, ...]
    """One answer for each, in one batch: the prompt is read once."""
    memory: MemorySource | None
    """None answers with the bare base."""


@dataclass(frozen=True)
class Piece:
    """Text of an answer as it became final."""

    choice: int
    """Which of the request's answers, from 0."""
    text: str


@dataclass(frozen=True)
class Finished:
    """A whole answer."""

    choice: int
    generation: Generation
    task: str | None = None
    """Whose memory the prompt was routed to, where a version has one for each; None also where it fits none."""
    cue: tuple[str, ...] = ()
    """Ids of the past trajectories that the weaver was shown."""
    tokens: tuple[TokenText, ...] = ()
    """Of each of the generation's tokens, if logprobs were asked for."""


class Ticket:
    """Written by the model's thread, read by one task."""

    def __init__(self, request: ChatRequest, *, wants_pieces: bool, background: bool = False) -> None:
        """Made in the reader's event loop."""
        self.request = request
        self.wants_pieces = wants_pieces
        self.background = background
        """Answered while no other waits, and given up as soon as one does."""
        self.abandoned = False
        """Nobody reads any more."""
        self._loop = asyncio.get_running_loop()
        # Unbounded: an answer is small, and a slow reader must not hold the model up.
        self._events: asyncio.Queue[Piece | Finished | Exception] = asyncio.Queue()

    def send(self, event: Piece | Finished | Exception) -> None:
        """From any thread; returns at once. An exception is the end."""
        if self.abandoned:
            return
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the reader's event loop was closed
            self.abandoned = True

    async def next(self) -> Piece | Finished | Exception:
        return await self._events.get()
