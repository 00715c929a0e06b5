"""Streams of server-sent events as responses: they are waited for without being lost, and closed however they end."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Generic, TypeVar

import structlog
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

log = structlog.get_logger()

ALIVE = ": keep-alive\n\n"
"""A comment, which clients pass over."""

T = TypeVar("T")


class Source(Generic[T]):
    """Events, read by a task that may be waited for a while and left waiting."""

    def __init__(self, events: AsyncGenerator[T, None]) -> None:
        self._events = events
        self._next: asyncio.Task[T | None] | None = None

    async def wait(self, seconds: float) -> bool:
        """Whether the next event, or an error in its place, is there within that time."""
        if self._next is None:
            self._next = asyncio.create_task(self._read())
        done, _ = await asyncio.wait((self._next,), timeout=seconds)
        return bool(done)

    def take(self) -> T | None:
        """The event that `wait` has waited for, None at the end; raises the error in its place."""
        assert self._next is not None
        taken, self._next = self._next, None
        return taken.result()

    async def close(self) -> None:
        """End the events. They are closed by who reads them: two at once can't."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        await self._events.aclose()

    async def _read(self) -> T | None:
        return await anext(self._events, None)


class EventStream(StreamingResponse, Generic[T]):
    """Closes its sources however it ends: a client that leaves must cost no more."""

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncGenerator[str | bytes, None],
        source: Source[T],
        label: str,
        *,
        headers: Mapping[str, str] | None = None,
        most_seconds: float | None = None,
    ) -> None:
        """
        Args:
            label: the version that answers.
            headers: further ones.
            most_seconds: the time in which the client must have read it; None: as long as it likes.
        """
        # A proxy that gathers a reply before it passes it on would gather the comments too.
        own = {"X-Memgen-Version": label, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(chunks, headers={**own, **(headers or {})})
        self._chunks, self._source, self._most_seconds = chunks, source, most_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._most_seconds):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            log.warning("a client did not read its stream", seconds=self._most_seconds)
        finally:
            await self._chunks.aclose()
            await self._source.close()
