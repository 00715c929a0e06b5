"""An upstream's answer, passed through: a stream event by event as its bytes come, a reply when it is whole.

All but the answer's id stays as it was sent. The end of an answer is held back until it was put together and recorded.
What breaks off, or makes no sense, ends in an error, and is not taken for an answer.
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from api.gateway.answers import AnswerParts, UpstreamAnswer
from api.gateway.calls import Gateway, UpstreamCall, failed, within
from api.gateway.events import DONE, EventCutter, NoEvent, data_of, with_id
from api.gateway.refusals import MOST_BYTES, UpstreamRefused, read_error, read_refusal
from api.http.disconnect import while_connected
from api.http.event_stream import ALIVE, EventStream, Source
from api.http.json_object import JsonObject
from api.http.openai_errors import openai_error, openai_status
from api.http.problems import described
from registry.errors import OutboundFailed, OutboundTimedOut

_PATH = "chat/completions"
_REFUSAL_SECONDS = 10.0
_READING_SECONDS = 30.0
"""How much longer than the upstream a client may take to read a stream: it holds a place with the upstream."""
_REST_SECONDS = 0.2
"""How long the end of a connection's answer is waited for, so that it can be used again."""
_QUICK_BYTES = 65_536
"""A reply up to this length is read in the event loop."""


@dataclass(frozen=True)
class Listener:
    """What an endpoint does about an answer. All are awaited."""

    on_begun: Callable[[], Awaitable[None]]
    """Called when the upstream has begun to answer, before anything of it is sent."""
    on_answered: Callable[[UpstreamAnswer], Awaitable[JsonObject]]
    """Called with the whole answer, before the last of it is sent. What it gives is `memgen` in a whole reply."""
    headers: Callable[[], Awaitable[Mapping[str, str]]]
    """Called for further headers of the response, just before it begins."""


async def pass_through(
    request: Request, gateway: Gateway, call: UpstreamCall, listener: Listener, *, alive_seconds: float
) -> Response:
    """The response to a request for an upstream's model. A client that goes away ends the upstream's work.

    An error that a stream meets within `alive_seconds` is an answer with its own status. After that the stream has
    begun, with comments wherever nothing came for so long, and an error is an event.

    Raises:
        UpstreamRefused: it answered with an error.
        UpstreamBusy, OutboundFailed, OutboundTimedOut: there is no answer of it.
        ClientDisconnect: the client went away before the reply began.
    """
    label = quote(call.label, safe="/@:+._-~ ")
    if not call.streams:
        reply = await while_connected(request, _whole_reply(gateway, call, listener))
        further = await listener.headers()
        return Response(reply, headers={"X-Memgen-Version": label, **further}, media_type="application/json")
    source = Source(_events(gateway, call, listener))
    try:
        if await while_connected(request, source.wait(alive_seconds)):
            source.take()
        headers = await listener.headers()
    except BaseException:
        await source.close()
        raise
    chunks = _kept_alive(request, source, alive_seconds)
    most_seconds = call.seconds_left + _READING_SECONDS
    return EventStream(chunks, source, label, headers=headers, most_seconds=most_seconds)


async def _kept_alive(
    request: Request, source: Source[bytes], alive_seconds: float
) -> AsyncGenerator[str | bytes, None]:
    try:
        while True:
            if not await source.wait(alive_seconds):
                yield ALIVE
            elif (passed := source.take()) is None:
                return
            elif passed:
                yield passed
    except UpstreamRefused as error:
        body = error.body
    except Exception as error:  # the status is sent already: what went wrong can only be reported as an event
        says = described(request, error)
        body = openai_error(openai_status(says.status), says.code, says.detail)
    yield f"data: {json.dumps(body, separators=(',', ':'))}\n\n"


async def _whole_reply(gateway: Gateway, call: UpstreamCall, listener: Listener) -> bytes:
    body = bytearray()
    async with gateway.answered(call, _PATH) as response:
        await _check_head(response, call)
        await listener.on_begun()
        async with aclosing(_parts(response, call)) as parts:
            async for part in parts:
                body += part
    if len(body) <= _QUICK_BYTES:
        reply, answer = _read_reply(call, bytes(body))
    else:
        reply, answer = await run_in_threadpool(_read_reply, call, bytes(body))
    whole = {**reply, "id": call.id, "memgen": await listener.on_answered(answer)}
    # In ASCII: half of a surrogate pair, which a model may say, has no bytes of its own.
    return json.dumps(whole, separators=(",", ":")).encode()


def _read_reply(call: UpstreamCall, body: bytes) -> tuple[JsonObject, UpstreamAnswer]:
    try:
        reply = _json(call.upstream.without_key_bytes(body))
        if isinstance(reply, dict) and reply.get("error"):
            raise read_error(call, reply["error"])
        parts = AnswerParts(call.upstream.without_key)
        parts.add_whole(reply)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise failed(call, "answered with what is no chat completion", repr(error)) from error
    if parts.is_empty:
        raise failed(call, "answered with a chat completion without an answer", "no choices")
    return reply, parts.answer()


async def _events(gateway: Gateway, call: UpstreamCall, listener: Listener) -> AsyncGenerator[bytes, None]:
    """First nothing, when the upstream has begun to answer; then its events, as many as came at once."""
    async with gateway.answered(call, _PATH) as response:
        await _check_head(response, call)
        await listener.on_begun()
        yield b""
        stream = _PassedStream(call)
        async with aclosing(_parts(response, call)) as parts:
            async for part in parts:
                passed = b"".join(stream.push(part))
                if stream.is_done:
                    break
                if passed:
                    yield passed
            else:
                passed = b"".join(stream.end())
            if stream.error is None:
                await listener.on_answered(stream.answer())
            yield passed
            with suppress(OutboundFailed, OutboundTimedOut):
                await within(_REST_SECONDS, anext(parts, None), call)


class _PassedStream:
    """The events of one stream, in and out."""

    def __init__(self, call: UpstreamCall) -> None:
        self._call, self._cutter, self._parts = call, EventCutter(), AnswerParts(call.upstream.without_key)
        self.is_done = False
        """Whether the event that says so, or an error, has come."""
        self.error: UpstreamRefused | None = None
        """The error that the upstream ended its stream with."""

    def push(self, part: bytes) -> Iterator[bytes]:
        """What of it is passed on. Raises OutboundFailed: it makes no sense."""
        try:
            for event in self._cutter.push(part):
                yield self._passed(event)
                if self.is_done:
                    return
        except NoEvent as error:
            raise self._garbage(error) from error

    def end(self) -> Iterator[bytes]:
        """What is left at the end of the bytes. Raises OutboundFailed: the answer is not whole."""
        last = list(self.push(rest)) if (rest := self._cutter.rest()) else []
        if not self.is_done and not self._parts.is_whole:
            raise failed(self._call, "broke off before its answer was whole", "its stream ended")
        yield from last

    def answer(self) -> UpstreamAnswer:
        """What was said, when it has ended. Raises OutboundFailed: nothing was."""
        if self._parts.is_empty:
            raise failed(self._call, "ended its stream without an answer", "no choices")
        return self._parts.answer()

    def _passed(self, event: bytes) -> bytes:
        # First of all: what is recorded is put together from it, too.
        event = self._call.upstream.without_key_bytes(event)
        data = data_of(event)
        if data is None or not data.strip():
            return event
        if data.strip() == DONE:
            self.is_done = True
            return event
        try:
            return self._passed_chunk(event, _json(data))
        except (ValueError, RecursionError) as error:
            raise self._garbage(error) from error

    def _passed_chunk(self, event: bytes, chunk: Any) -> bytes:
        """Raises ValueError: it is none."""
        if not isinstance(chunk, dict):
            raise ValueError("no object")
        if chunk.get("error"):
            self.error, self.is_done = read_error(self._call, chunk["error"]), True
            return f"data: {json.dumps(self.error.body, separators=(',', ':'))}\n\n".encode()
        self._parts.add(chunk)
        return with_id(event, chunk, self._call.id)

    def _garbage(self, reason: Exception) -> OutboundFailed:
        shown = self._call.upstream.without_key(str(reason))
        return failed(self._call, "sent what is no chunk of a chat completion", shown[:300])


def _json(data: bytes) -> Any:
    """The value, with null for NaN and infinities: servers write them, and few can read them. Raises ValueError."""
    return json.loads(data, parse_constant=lambda _: None)


async def _parts(response: httpx.Response, call: UpstreamCall) -> AsyncGenerator[bytes, None]:
    """The body as it comes, within the upstream's limits.

    Raises:
        OutboundFailed: it breaks off, or is too long.
        OutboundTimedOut: it is silent for too long, or takes too long.
    """
    upstream, length = call.upstream, 0
    patience = upstream.first_byte_seconds if call.streams else upstream.idle_seconds
    most = upstream.max_response_bytes
    parts = response.aiter_raw()
    while True:
        try:
            part = await within(min(patience, call.seconds_left), anext(parts, None), call)
        except httpx.TransportError as error:
            raise failed(call, "broke off", error) from error
        if part is None:
            return
        length += len(part)
        if length > most:
            raise failed(call, f"answered with more than {most} bytes (`max_response_bytes`)", "too long")
        yield part
        patience = upstream.idle_seconds


async def _check_head(response: httpx.Response, call: UpstreamCall) -> None:
    """Raises UpstreamRefused or OutboundFailed unless an answer follows."""
    status = response.status_code
    if 400 <= status <= 599:
        body = await _refusal_body(response, call)
        raise read_refusal(call, status, body, response.headers.get("retry-after"))
    if status != 200:
        raise failed(call, f"answered {status}, which is neither an answer nor an error", "status")
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise failed(call, "answered in an encoding that was not requested", f"Content-Encoding {encoding[:60]!r}")
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if call.streams and kind != "text/event-stream":
        raise failed(call, "did not answer with a stream, though one was requested", f"Content-Type {kind[:60]!r}")


async def _refusal_body(response: httpx.Response, call: UpstreamCall) -> bytes:
    """As much of it as comes in a moment; the status says the most."""
    body = bytearray()
    with suppress(httpx.TransportError, OutboundTimedOut):
        parts = response.aiter_raw()
        while len(body) < MOST_BYTES:
            part = await within(min(_REFUSAL_SECONDS, call.seconds_left), anext(parts, None), call)
            if part is None:
                break
            body += part
    return bytes(body[:MOST_BYTES])
