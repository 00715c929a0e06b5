"""A chat request on its way from a task of an event loop to the thread that owns the model, and its answers back."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.inference.prompts import Prompt
from api.inference.token_texts import TokenText
from memgen.generation.requests import Generation
from memgen.generation.sampling import Sampling
from registry.binding import ServedBase


@dataclass(frozen=True)
class MemorySource:
    """Where a version's artifact comes from, called only by the model's thread."""

    name: str
    manifest_sha256: str
    fetch: Callable[[Path], None]
    fetch_other: Callable[[str, Path], None] | None = None
    """Fills a folder with the memory of another task, by the manifest hash that this artifact refers to it by. None
    where a version has one memory."""
    check_base: Callable[[ServedBase], None] | None = None
    """Raises unless the version's adapter is bound to that base."""


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
    opened: bool = False
    """The prompt opens a thought, which the answer goes on with."""


@dataclass(frozen=True)
class Finished:
    """A whole answer."""

    choice: int
    generation: Generation
    task: str | None = None
    """Task that the prompt was routed to, where a version has a memory for each; None where it fits none of them."""
    cue: tuple[str, ...] = ()
    """Ids of the past trajectories that the weaver was shown."""
    tokens: tuple[TokenText, ...] = ()
    """Text and bytes of each of the generation's tokens, if logprobs were requested."""
    opened: bool = False
    """The prompt opens a thought, which the answer goes on with."""


class Ticket:
    """Written by the model's thread, read by one task."""

    def __init__(self, request: ChatRequest, *, wants_pieces: bool, background: bool = False) -> None:
        """To be called in the reader's event loop."""
        self.request = request
        self.wants_pieces = wants_pieces
        self.background = background
        """Answered only while no other waits, and given up as soon as one does."""
        self.prompt: Prompt | None = None
        """Set before the model's thread gets the ticket."""
        self.abandoned = False
        """The reader has gone."""
        self._loop = asyncio.get_running_loop()
        # Unbounded: an answer is small, and a slow reader must not hold the model up.
        self._events: asyncio.Queue[Piece | Finished | Exception] = asyncio.Queue()

    def send(self, event: Piece | Finished | Exception) -> None:
        """To be called from any thread; returns at once. An exception is the last event."""
        if self.abandoned:
            return
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the reader's event loop was closed
            self.abandoned = True

    async def next(self) -> Piece | Finished | Exception:
        return await self._events.get()
