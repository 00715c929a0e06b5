"""A chat reply as server-sent events, as OpenAI streams it."""

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.endpoints.chat_reply import Reply
from api.http.disconnect import while_connected
from api.http.problems import streamed_problem
from api.inference.tickets import Finished, Piece

Events = AsyncGenerator[Piece | Finished, None]
OnAnswered = Callable[[Sequence[Finished]], None]


async def open_stream(
    request: Request, reply: Reply, events: Events, choices: int, on_answered: OnAnswered | None = None
) -> StreamingResponse:
    """The response, begun once there is something to send: what fails before is an error with its own status.

    Args:
        on_answered: called with all answers when they are whole.

    Raises:
        ClientDisconnect: the client went away before.
    """
    first = await while_connected(request, _next(events))
    return _Stream(_chunks(request, reply, first, events, choices, on_answered), events, reply.resolution.label)


class _Stream(StreamingResponse):
    """Closes its sources however it ends: a client that leaves must cost no more tokens."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncGenerator[str, None], events: Events, label: str) -> None:
        super().__init__(chunks, headers={"X-Memgen-Version": label, "Cache-Control": "no-cache"})
        self._sources = chunks, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            for source in self._sources:
                await source.aclose()


async def _chunks(
    request: Request,
    reply: Reply,
    first: Piece | Finished | None,
    events: Events,
    choices: int,
    on_answered: OnAnswered | None,
) -> AsyncGenerator[str, None]:
    answers: list[Finished] = []
    try:
        for choice in range(choices):
            yield _event(reply.opening(choice))
        event = first
        while event is not None:
            if isinstance(event, Piece):
                if not reply.tools:
                    yield _event(reply.text(event.choice, event.text))
            else:
                answers.append(event)
                *before, last = reply.ending(event)
                for chunk in before:
                    yield _event(chunk)
                yield _event(reply.stamped(last, answers) if len(answers) == choices else last)
            event = await _next(events)
        if on_answered is not None:
            on_answered(answers)
    except Exception as error:  # the status is sent already: what went wrong can only be reported as an event
        yield _event(streamed_problem(request, error))
        return
    if reply.include_usage:
        yield _event(reply.usage(answers))
    yield "data: [DONE]\n\n"


async def _next(events: Events) -> Piece | Finished | None:
    return await anext(events, None)


def _event(data: dict[str, Any]) -> str:
    # In ASCII: some clients also break lines at characters that JSON leaves as they are, as U+2028.
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"
