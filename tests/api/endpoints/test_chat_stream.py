"""A stream's sources are closed wherever it ends, also where no task is waiting for them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect

from api.endpoints.chat_reply import Reply
from api.endpoints.chat_stream import open_stream
from api.inference.tickets import Finished, Piece
from registry.serving.resolution import Resolution

SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}


@pytest.mark.parametrize("sent", [0, 1, 3])
def test_a_connection_lost_while_sending_closes_the_source(sent: int) -> None:
    closed = []

    async def events() -> AsyncGenerator[Piece | Finished, None]:
        try:
            while True:
                yield Piece(0, "more")
        finally:
            closed.append(True)

    async def forever() -> Any:
        await asyncio.Event().wait()

    messages = []

    async def send(message: Any) -> None:
        if len(messages) == sent:
            raise OSError("connection lost")
        messages.append(message)

    async def run() -> None:
        source = events()
        reply = await open_stream(Request(SCOPE, forever), Reply(Resolution(), tools=False), source, 1)
        with pytest.raises(ClientDisconnect):
            await reply({**SCOPE, "asgi": {"spec_version": "2.4"}}, forever, send)
        assert closed == [True]

    asyncio.run(run())
    assert len(messages) == sent
