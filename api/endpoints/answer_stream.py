"""A reply as server-sent events, in whichever API's shape.

An error that comes within a moment, as nearly all do that a request causes, is an answer with its own status. After
that the stream has begun: comments keep its connection alive while there is nothing to send, and an error is an event.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.http.disconnect import while_connected
from api.http.json_object import JsonObject
from api.http.problems import Described, described
from api.inference.requests import Finished, Piece

Events = AsyncGenerator[Piece | Finished, None]
OnAnswered = Callable[[Sequence[Finished]], Awaitable[None]]
OnFinished = Callable[[Finished], Awaitable[None]]

_PATIENCE_SECONDS = 1.0
"""How long a stream waits with its headers for what comes first."""
_ALIVE = ": keep-alive\n\n"
"""A comment, which clients pass over."""


class AnswerShape(Protocol):
    """How one API words one reply: as a whole, or as the texts of a stream's events, which are asked for in order."""

    def whole(self, answers: Sequence[Finished]) -> JsonObject:
        """The reply; behind a stream the one that its events have made up. A shape with memory gives the same again."""
        ...

    def message(self, answer: Finished) -> tuple[JsonObject, str]:
        """The assistant message of one choice in OpenAI's shape, whatever the API's, and why it ended."""
        ...

    def opening(self) -> Iterable[str]: ...

    def event(self, event: Piece | Finished) -> Iterable[str]:
        """Nothing where nothing is certain yet."""
        ...

    def ending(self) -> Iterable[str]: ...

    def failure(self, error: Described) -> Iterable[str]:
        """In place of all that would follow."""
        ...


def data_event(data: dict[str, Any], name: str | None = None) -> str:
    # In ASCII: some clients also break lines at characters that JSON leaves as they are, as U+2028.
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(data, separators=(',', ':'))}\n\n"


class Source:
    """Events, read by a task that may be waited for a while and left waiting."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._next: asyncio.Task[Piece | Finished | None] | None = None

    async def wait(self, seconds: float) -> bool:
        """Whether the next event, or an error in its place, is there within that time."""
        if self._next is None:
            self._next = asyncio.create_task(self._read())
        done, _ = await asyncio.wait((self._next,), timeout=seconds)
        return bool(done)

    def take(self) -> Piece | Finished | None:
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

    async def _read(self) -> Piece | Finished | None:
        return await anext(self._events, None)


async def open_stream(
    request: Request,
    shape: AnswerShape,
    events: Events,
    label: str,
    on_answered: OnAnswered | None = None,
    *,
    on_finished: OnFinished | None = None,
    alive_seconds: float = 5.0,
) -> StreamingResponse:
    """The response. What fails within a second is an error with its own status; then the stream begins anyway.

    Args:
        label: the version that answers.
        on_answered: awaited with all answers when they are whole, before the stream's end is sent.
        on_finished: awaited with each answer when it is whole, before its end is sent.
        alive_seconds: time without anything sent after which a comment is.

    Raises:
        ClientDisconnect: the client went away before.
    """
    source = Source(events)
    try:
        if await while_connected(request, source.wait(min(_PATIENCE_SECONDS, alive_seconds))):
            first = [source.take()]
        else:
            first = []
    except BaseException:
        await source.close()
        raise
    following = _following(first, source, alive_seconds)
    chunks = _kept_alive(_event_texts(request, shape, following, on_answered, on_finished), alive_seconds)
    return _Stream(chunks, source, label)


class _Stream(StreamingResponse):
    """Closes its sources however it ends: a client that leaves must cost no more tokens."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncGenerator[str, None], source: Source, label: str) -> None:
        # A proxy that gathers a reply before it passes it on would gather the comments too.
        headers = {"X-Memgen-Version": label, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(chunks, headers=headers)
        self._chunks, self._source = chunks, source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._chunks.aclose()
            await self._source.close()


async def _following(
    first: Sequence[Piece | Finished | None], source: Source, alive_seconds: float
) -> AsyncGenerator[Piece | Finished | None, None]:
    """The events to their end; None each time that nothing came for `alive_seconds`."""
    for event in first:
        if event is None:
            return
        yield event
    while True:
        if not await source.wait(alive_seconds):
            yield None
        elif (event := source.take()) is None:
            return
        else:
            yield event


async def _kept_alive(chunks: AsyncGenerator[str | None, None], seconds: float) -> AsyncGenerator[str, None]:
    """The chunks, with a comment where for so long there was none; None says that there is none now."""
    clock = asyncio.get_running_loop().time
    sent = clock()
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk is None and clock() - sent < seconds:
                continue
            yield chunk or _ALIVE
            sent = clock()


async def _event_texts(
    request: Request,
    shape: AnswerShape,
    events: AsyncGenerator[Piece | Finished | None, None],
    on_answered: OnAnswered | None,
    on_finished: OnFinished | None,
) -> AsyncGenerator[str | None, None]:
    answers: list[Finished] = []
    try:
        for text in shape.opening():
            yield text
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Finished) and on_finished is not None:
                    await on_finished(event)
                texts = [] if event is None else list(shape.event(event))
                if isinstance(event, Finished):
                    answers.append(event)
                if not texts:
                    yield None
                for text in texts:
                    yield text
        if on_answered is not None:
            await on_answered(answers)
        texts = list(shape.ending())
    except Exception as error:  # the status is sent already: what went wrong can only be reported as an event
        texts = list(shape.failure(described(request, error)))
    for text in texts:
        yield text
