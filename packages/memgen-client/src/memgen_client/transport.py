"""Sends the calls of the synchronous clients."""

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from memgen_client.answers import cursor_of, rows_of
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


class SyncTransport:
    """A pool of connections to one service, with one key."""

    def __init__(self, terms: Terms, *, as_json: bool = False) -> None:
        """`as_json` leaves answers as the service's JSON."""
        self._terms, self._as_json = terms, as_json
        options = connection_options(terms)
        self._pool = LocalPool(lambda: httpx.Client(**options), os.getpid)
        self._pool.get()  # made before threads share the client: two at once would make two

    @property
    def _http(self) -> httpx.Client:
        return self._pool.get()

    def close(self) -> None:
        self._http.close()

    def one(self, call: Call[Any] | Wait[Any]) -> Any:
        if isinstance(call, Wait):
            return self._wait(call)
        if isinstance(call, Download):
            return self._again(call, lambda: self._download(call))
        body = self._reply(call)
        return call.answer.unread(body) if self._as_json else call.answer.read(body)

    def many(self, stream: Stream[Any]) -> Generator[Any, None, None]:
        match stream:
            case Pages():
                return self._pages(stream)
            case Follow():
                return self._follow(stream)
            case Chunks():
                return self._chunks(stream)

    def _again(self, call: Call[Any], send: Callable[[], SentT]) -> SentT:
        """What `send` returns, after as many tries as the terms allow."""
        failed = 0
        while True:
            try:
                return send()
            except ClientError as error:
                failed += 1
                pause = pause_before_next_try(self._terms, call, failed, error)
                if pause is None:
                    raise
            time.sleep(pause)

    def _reply(self, call: Call[Any]) -> JsonObject:
        return self._again(call, lambda: self._send(call))

    def _send(self, call: Call[Any]) -> JsonObject:
        options = request_options(call, self._terms.timeout_seconds)
        content = None if call.content is None else call.content.blocks()
        try:
            response = self._http.request(**options, json=call.body, content=content)
        except httpx.RequestError as error:
            raise failure(self._terms.base_url, error, options["timeout"].read) from error
        return json_of(response, call.also)

    def _download(self, call: Download) -> int:
        part = call.target.with_name(f"{call.target.name}.part")
        try:
            with self._http.stream(**request_options(call, self._terms.timeout_seconds)) as response:
                if response.is_error:
                    response.read()
                    check(response)
                with part.open("wb") as file:
                    for block in response.iter_bytes():
                        file.write(block)
            part.replace(call.target)
        except httpx.RequestError as error:
            raise failure(self._terms.base_url, error) from error
        finally:
            part.unlink(missing_ok=True)
        return call.target.stat().st_size

    def _wait(self, wait: Wait[Any]) -> Any:
        following = wait.following(time.monotonic())
        for update in self._updates(wait.path, following):
            if wait.on_update is not None:
                wait.on_update(update)
        job = following.job or {}
        state, error = state_of(job)
        if wait.check and state != "succeeded":
            raise JobEnded(wait.job_id, state, error)
        read = wait.read(job)
        return job if self._as_json else read

    def _pages(self, pages: Pages[Any]) -> Generator[Any, None, None]:
        cursor: str | None = None
        while True:
            call = pages.call.at(cursor, PAGE_ITEMS)
            body = self._reply(call)
            page = call.answer.read(body)
            yield from rows_of(body) if self._as_json else page.data
            cursor = cursor_of(body)
            if cursor is None:
                return

    def _follow(self, follow: Follow[Any]) -> Generator[Any, None, None]:
        for update in self._updates(follow.path, follow.following(time.monotonic())):
            read = follow.read(update)
            yield update if self._as_json else read

    def _updates(self, path: str, following: Following) -> Generator[Update, None, None]:
        while True:
            try:
                yield from self._connected(path, following)
                if following.has_ended:
                    return
            except ClientError as error:
                following.broke(error, time.monotonic())
            time.sleep(RECONNECT_SECONDS)

    def _connected(self, path: str, following: Following) -> Generator[Update, None, None]:
        """What one connection brings; it ends when the service ends it, and after a long silence."""
        silence = following.silence(time.monotonic())
        events, headers, is_heard = Events(), {"Last-Event-ID": str(following.after)}, False
        try:
            with self._lines("GET", path, silence, headers=headers) as lines:
                for line in lines:
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

    def _chunks(self, asked: Chunks[Any]) -> Generator[Any, None, None]:
        chunks = AnswerChunks()
        try:
            with self._lines("POST", asked.path, asked.seconds, json=asked.body, headers=asked.headers) as lines:
                for line in lines:
                    if (chunk := chunks.feed(line)) is not None:
                        yield chunk if self._as_json else asked.read(chunk)
                    if chunks.has_ended:
                        return
        except httpx.RequestError as error:
            raise failure(self._terms.base_url, error) from error
        raise broken_off(self._terms.base_url)

    @contextmanager
    def _lines(self, method: str, path: str, silence_seconds: float, **options: Any) -> Iterator[Iterator[str]]:
        """The lines of a reply that is read as it comes; raises ApiError if it is a refusal."""
        timeout = httpx.Timeout(min(self._terms.timeout_seconds, silence_seconds), read=silence_seconds)
        with self._http.stream(method, path, timeout=timeout, **options) as response:
            if response.is_error:
                response.read()
                check(response)
            check_stream(response)
            lines = Lines()
            yield (line for block in response.iter_bytes() for line in lines.feed(block))
