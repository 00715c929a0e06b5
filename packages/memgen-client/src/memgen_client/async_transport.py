"""Sends the calls of the asynchronous client: `transport.py`, awaited."""

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import httpx
from anyio.lowlevel import current_token

from memgen_client.answers import cursor_of
from memgen_client.calls import Call, Chunks, Download, Follow, Pages, Stream, Wait
from memgen_client.errors import ClientError, JobEnded
from memgen_client.following import RECONNECT_SECONDS, Following, Update, state_of
from memgen_client.json_values import JsonObject
from memgen_client.streams import AnswerChunks, Events, Lines
from memgen_client.wire import (
    PAGE_ITEMS,
    LocalPool,
    Terms,
    broken_off,
    check,
    check_stream,
    connection_options,
    failure,
    json_of,
    pause_before_next_try,
    request_options,
)

SentT = TypeVar("SentT")


class AsyncTransport:
    """A pool of connections to one service, with one key."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        options = connection_options(terms)
        self._pool = LocalPool(lambda: httpx.AsyncClient(**options), lambda: (os.getpid(), current_token()))

    @property
    def _http(self) -> httpx.AsyncClient:
        return self._pool.get()

    async def close(self) -> None:
        await self._http.aclose()

    async def one(self, call: Call[Any] | Wait[Any]) -> Any:
        if isinstance(call, Wait):
            return await self._wait(call)
        if isinstance(call, Download):
            return await self._again(call, lambda: self._download(call))
        body = await self._reply(call)
        return call.answer.read(body)

    def many(self, stream: Stream[Any]) -> AsyncGenerator[Any, None]:
        match stream:
            case Pages():
                return self._pages(stream)
            case Follow():
                return self._follow(stream)
            case Chunks():
                return self._chunks(stream)

    async def _again(self, call: Call[Any], send: Callable[[], Awaitable[SentT]]) -> SentT:
        """What `send` returns, after as many tries as the terms allow."""
        failed = 0
        while True:
            try:
                return await send()
            except ClientError as error:
                failed += 1
                pause = pause_before_next_try(self._terms, call, failed, error)
                if pause is None:
                    raise
            await anyio.sleep(pause)

    async def _reply(self, call: Call[Any]) -> JsonObject:
        return await self._again(call, lambda: self._send(call))

    async def _send(self, call: Call[Any]) -> JsonObject:
        options = request_options(call, self._terms.timeout_seconds)
        content = None if call.content is None else call.content.blocks_async()
        try:
            response = await self._http.request(**options, json=call.body, content=content)
        except httpx.RequestError as error:
            raise failure(self._terms.base_url, error, options["timeout"].read) from error
        return json_of(response, call.also)

    async def _download(self, call: Download) -> int:
        part = call.target.with_name(f"{call.target.name}.part")
        try:
            async with self._http.stream(**request_options(call, self._terms.timeout_seconds)) as response:
                if response.is_error:
                    await response.aread()
                    check(response)
                async with await anyio.open_file(part, "wb") as file:
                    async for block in response.aiter_bytes():
                        await file.write(block)
            part.replace(call.target)
        except httpx.RequestError as error:
            raise failure(self._terms.base_url, error) from error
        finally:
            part.unlink(missing_ok=True)
        return call.target.stat().st_size

    async def _wait(self, wait: Wait[Any]) -> Any:
        following = wait.following(time.monotonic())
        async for update in self._updates(wait.path, following):
            if wait.on_update is not None:
                wait.on_update(update)
        job = following.job or {}
        state, error = state_of(job)
        if wait.check and state != "succeeded":
            raise JobEnded(wait.job_id, state, error)
        return wait.read(job)

    async def _pages(self, pages: Pages[Any]) -> AsyncGenerator[Any, None]:
        cursor: str | None = None
        while True:
            call = pages.call.at(cursor, PAGE_ITEMS)
            body = await self._reply(call)
            for row in call.answer.read(body).data:
                yield row
            cursor = cursor_of(body)
            if cursor is None:
                return

    async def _follow(self, follow: Follow[Any]) -> AsyncGenerator[Any, None]:
        async for update in self._updates(follow.path, follow.following(time.monotonic())):
            yield follow.read(update)

    async def _updates(self, path: str, following: Following) -> AsyncGenerator[Update, None]:
        while True:
            try:
                async for update in self._connected(path, following):
                    yield update
                if following.has_ended:
                    return
            except ClientError as error:
                following.broke(error, time.monotonic())
            await anyio.sleep(RECONNECT_SECONDS)

    async def _connected(self, path: str, following: Following) -> AsyncGenerator[Update, None]:
        """What one connection brings; it ends when the service ends it, and after a long silence."""
        silence = following.silence(time.monotonic())
        events, headers, is_heard = Events(), {"Last-Event-ID": str(following.after)}, False
        try:
            async with self._lines("GET", path, silence, headers=headers) as lines:
                async for line in lines:
                    is_heard = True
                    if update := following.take(events.feed(line), time.monotonic()):
                        yield update
        except httpx.ReadTimeout as error:
            if is_heard:  # the job has nothing to say
                return
            raise failure(self._terms.base_url, error, silence) from error
        except httpx.RequestError as error:
            raise failure(self._terms.base_url, error) from error
        if not following.has_ended:
            raise broken_off(self._terms.base_url)

    async def _chunks(self, asked: Chunks[Any]) -> AsyncGenerator[Any, None]:
        chunks = AnswerChunks()
        try:
            async with self._lines("POST", asked.path, asked.seconds, json=asked.body, headers=asked.headers) as lines:
                async for line in lines:
                    if (chunk := chunks.feed(line)) is not None:
                        yield asked.read(chunk)
                    if chunks.has_ended:
                        return
        except httpx.RequestError as error:
            raise failure(self._terms.base_url, error) from error
        raise broken_off(self._terms.base_url)

    @asynccontextmanager
    async def _lines(
        self, method: str, path: str, silence_seconds: float, **options: Any
    ) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of a reply that is read as it comes; raises ApiError if it is a refusal."""
        timeout = httpx.Timeout(min(self._terms.timeout_seconds, silence_seconds), read=silence_seconds)
        async with self._http.stream(method, path, timeout=timeout, **options) as response:
            if response.is_error:
                await response.aread()
                check(response)
            check_stream(response)
            lines = Lines()
            yield (line async for block in response.aiter_bytes() for line in lines.feed(block))
