"""A chat request on its way from a task of an event loop to an engine, and its answers back; what both engines need."""

import asyncio

from api.inference.requests import ChatRequest, Finished, Piece

Event = Piece | Finished | Exception


class EngineTicket:
    """Written by an engine's thread, read by one task."""

    def __init__(self, request: ChatRequest, *, wants_pieces: bool, background: bool) -> None:
        """To be called in the reader's event loop."""
        self.request = request
        self.wants_pieces = wants_pieces
        self.background = background
        """Answered only while no other waits, and given up as soon as one does."""
        self.backlog_number = 0
        """0 in the background, which no one waits behind."""
        self.begun = False
        """The engine has begun with it."""
        self.abandoned = False
        """The reader has gone."""
        self._loop = asyncio.get_running_loop()
        # Unbounded: an answer is small, and a slow reader must not hold the others up.
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def send(self, event: Event) -> None:
        """To be called from any thread; returns at once. An exception is the last event."""
        if self.abandoned:
            return
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the reader's event loop was closed
            self.abandoned = True

    async def next(self) -> Event:
        return await self._events.get()
