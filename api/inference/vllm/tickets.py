"""A request on its way from a task of the API's event loop to the engine's own loop, and its answers back."""

import asyncio

from api.inference.requests import ChatRequest, Finished, Piece

Event = Piece | Finished | Exception


class VllmTicket:
    """Written in the engine's loop, read by one task of another."""

    def __init__(self, request: ChatRequest, *, wants_pieces: bool, background: bool) -> None:
        """To be called in the reader's event loop."""
        self.request = request
        self.wants_pieces = wants_pieces
        self.background = background
        """Answered only while no other waits, and given up as soon as one does."""
        self.is_being_answered = False
        """Whether it was sent to a server."""
        self.begun = False
        """Tokens of it have come."""
        self.backlog_number = 0
        self._loop = asyncio.get_running_loop()
        # Unbounded: an answer is small, and a slow reader must not hold the others up.
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def send(self, event: Event) -> None:
        """To be called from any thread; returns at once. An exception is the last event."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def next(self) -> Event:
        return await self._events.get()
