"""A chat request on its way from a task of an event loop to the thread that owns the model, and its answers back."""

import asyncio
import time

from api.inference.prompts import Prompt
from api.inference.requests import ChatRequest, Finished, Piece
from memgen.experience.cue import Cue


class Ticket:
    """Written by the model's thread, read by one task."""

    def __init__(
        self, request: ChatRequest, *, wants_pieces: bool, background: bool = False, seconds: float = float("inf")
    ) -> None:
        """To be called in the reader's event loop. `seconds` from now the reader waits no more."""
        self.request = request
        self.wants_pieces = wants_pieces
        self.background = background
        """Answered only while no other waits, and given up as soon as one does."""
        self.order = 0
        """Smaller came earlier."""
        self.prompt: Prompt | None = None
        """Set before the model's thread gets the ticket."""
        self.cues: dict[str | None, Cue] = {}
        """What each memory's weaver is shown beside the conversation."""
        self.backlog_number = 0
        """0 in the background, which no one waits behind."""
        self.rough_tokens = 0
        """What it counts for in the backlog."""
        self.begun = False
        """The model has begun with it."""
        self.abandoned = False
        """The reader has gone."""
        self._deadline = time.monotonic() + seconds
        self._loop = asyncio.get_running_loop()
        # Unbounded: an answer is small, and a slow reader must not hold the model up.
        self._events: asyncio.Queue[Piece | Finished | Exception] = asyncio.Queue()

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for its answer any more."""
        return self.abandoned or time.monotonic() >= self._deadline

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

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
