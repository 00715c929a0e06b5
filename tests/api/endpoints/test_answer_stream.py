"""A stream's sources are closed wherever it ends, also where no task is waiting for them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect

from api.endpoints.answer_stream import open_stream
from api.endpoints.chat_reply import Reply
from api.endpoints.chat_stream import ChatShape
from api.inference.requests import Finished, Piece
from memgen.errors import PromptTooLong
from registry.serving.resolution import Resolution

SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}


def shape(*, tools: bool = False) -> ChatShape:
    return ChatShape(Reply(Resolution(), tools=tools), 1)


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
        reply = await open_stream(Request(SCOPE, forever), shape(), source, "base")
        with pytest.raises(ClientDisconnect):
            await reply({**SCOPE, "asgi": {"spec_version": "2.4"}}, forever, send)
        assert closed == [True]

    asyncio.run(run())
    assert len(messages) == sent


async def _never() -> Any:
    await asyncio.Event().wait()


class _Client:
    """Takes what is sent, as a server does."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.changed = asyncio.Event()
        self.left = asyncio.Event()

    async def send(self, message: Any) -> None:
        self.messages.append(message)
        self.changed.set()

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def body(self, text: str) -> str:
        """All that was sent, as soon as it holds the text."""
        async with asyncio.timeout(30):
            while text not in (sent := b"".join(m.get("body", b"") for m in self.messages).decode()):
                self.changed.clear()
                await self.changed.wait()
        return sent


@pytest.mark.parametrize("tools", [False, True])
def test_a_silent_stream_is_kept_alive_by_comments(tools: bool) -> None:
    """Before the first event, and where events come but nothing of them may be sent yet."""

    async def run() -> None:
        going, closed = asyncio.Event(), asyncio.Event()

        async def events() -> AsyncGenerator[Piece | Finished, None]:
            try:
                await going.wait()
                if tools:  # a call that has begun is held back until it is whole
                    yield Piece(0, '<tool_call>{"name": "')
                while True:
                    yield Piece(0, "more")
                    await asyncio.sleep(0.005)
            finally:
                closed.set()

        client = _Client()
        stream = await open_stream(
            Request(SCOPE, client.receive), shape(tools=tools), events(), "base", alive_seconds=0.02
        )
        serving = asyncio.create_task(stream({**SCOPE, "asgi": {"spec_version": "2.3"}}, client.receive, client.send))
        sent = await client.body(": keep-alive\n\n: keep-alive\n\n")
        assert sent.startswith('data: {"id":')
        assert client.messages[0]["status"] == 200
        going.set()
        if tools:
            count = len(client.messages)
            async with asyncio.timeout(30):
                while len(client.messages) < count + 5:
                    await asyncio.sleep(0.005)
            assert "more" not in await client.body("")
        else:
            await client.body("more")
        client.left.set()
        await asyncio.wait_for(serving, 30)
        assert closed.is_set()

    asyncio.run(run())


def test_who_leaves_before_the_first_event_ends_the_events() -> None:
    async def run() -> None:
        closed = asyncio.Event()

        async def events() -> AsyncGenerator[Piece | Finished, None]:
            try:
                await _never()
                yield Piece(0, "")
            finally:
                closed.set()

        client = _Client()
        request = Request(SCOPE, client.receive)
        stream = await open_stream(request, shape(), events(), "base", alive_seconds=0.02)
        serving = asyncio.create_task(stream({**SCOPE, "asgi": {"spec_version": "2.3"}}, client.receive, client.send))
        await client.body(": keep-alive\n\n")
        client.left.set()
        await asyncio.wait_for(serving, 30)
        assert closed.is_set()
        closed.clear()
        with pytest.raises(ClientDisconnect):
            await open_stream(request, shape(), events(), "base")
        assert closed.is_set()

    asyncio.run(run())


def test_an_error_in_time_has_its_own_status_and_a_late_one_is_an_event() -> None:
    async def run() -> None:
        late = asyncio.Event()

        async def events(*, wait: bool) -> AsyncGenerator[Piece | Finished, None]:
            if wait:
                await late.wait()
            raise PromptTooLong("too long")
            yield Piece(0, "")

        client = _Client()
        request = Request(SCOPE, client.receive)
        reply = shape()
        with pytest.raises(PromptTooLong):
            await open_stream(request, reply, events(wait=False), "base")
        stream = await open_stream(request, reply, events(wait=True), "base", alive_seconds=0.02)
        serving = asyncio.create_task(stream({**SCOPE, "asgi": {"spec_version": "2.3"}}, client.receive, client.send))
        await client.body(": keep-alive\n\n")
        late.set()
        await asyncio.wait_for(serving, 30)
        assert "context_length_exceeded" in await client.body("")

    asyncio.run(run())
