"""A reply as server-sent events, in whichever API's shape.

An error that comes within a moment, as nearly all do that a request causes, is an answer with its own status. After
that the stream has begun: comments keep its connection alive while there is nothing to send, and an error is an event.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from fastapi import Request, Response

from api.http.disconnect import while_connected
from api.http.event_stream import ALIVE, EventStream, Source
from api.http.json_object import JsonObject
from api.http.problems import Described, described
from api.inference.requests import Finished, Piece

Events = AsyncGenerator[Piece | Finished, None]
OnAnswered = Callable[[Sequence[Finished]], Awaitable[None]]
OnFinished = Callable[[Finished], Awaitable[None]]

_PATIENCE_SECONDS = 1.0
"""How long a stream waits with its headers for what comes first."""


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


async def open_stream(
    request: Request,
    shape: AnswerShape,
    events: Events,
    label: str,
    on_answered: OnAnswered | None = None,
    *,
    on_finished: OnFinished | None = None,
    alive_seconds: float = 5.0,
) -> Response:
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
    return EventStream(chunks, source, label)


async def _following(
    first: Sequence[Piece | Finished | None], source: Source[Piece | Finished], alive_seconds: float
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


async def _kept_alive(chunks: AsyncGenerator[str | None, None], seconds: float) -> AsyncGenerator[str | bytes, None]:
    """The chunks, with a comment where for so long there was none; None says that there is none now."""
    clock = asyncio.get_running_loop().time
    sent = clock()
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk is None and clock() - sent < seconds:
                continue
            yield chunk or ALIVE
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
