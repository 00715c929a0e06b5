"""Requests on their way to upstreams: how many at once, what is sent, and what is tried again.

A request is sent again only where the upstream has certainly not begun to answer it: no connection was made, or it said
429 or 503 and when to come again.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import httpx
import structlog

from api.http.json_object import JsonObject
from registry.errors import AddressRefused, OutboundFailed, OutboundTimedOut, UpstreamBusy
from registry.upstreams import Upstream, Upstreams, open_upstream

log = structlog.get_logger()
T = TypeVar("T")

OURS = ("store", "metadata")
"""Fields that speak to this service: what is recorded here is not for the upstream to store, and OpenAI refuses
`metadata` of what it does not store."""

_TAKEN_NOT = (429, 503)
_FIRST_WAIT_SECONDS = 0.2
_BUSY_SECONDS = 1
"""When a request that found an upstream full may come again."""


@dataclass(frozen=True)
class UpstreamCall:
    """One request for an upstream's model."""

    id: str
    """The answer's id, which is ours: an upstream's own may be anything, and another's too."""
    upstream: Upstream
    model: str
    """As the upstream calls it."""
    body: JsonObject
    """As it came, with a `model` that names the upstream."""
    seconds: float | None = None
    """How long the caller waits for the answer, if that is less than the upstream's own limit."""
    begun_at: float = field(default_factory=time.monotonic)

    @property
    def label(self) -> str:
        """`strong/gpt-5`."""
        return f"{self.upstream.name}/{self.model}"

    @property
    def streams(self) -> bool:
        return self.body.get("stream") is True

    @cached_property
    def content(self) -> bytes:
        """What is sent: the body with the upstream's own name of the model, and without what speaks to us."""
        sent = {name: value for name, value in self.body.items() if name not in OURS}
        return json.dumps({**sent, "model": self.model}, separators=(",", ":")).encode()

    @property
    def seconds_left(self) -> float:
        """What is left of the time for the whole answer."""
        most = min(self.upstream.total_seconds, self.seconds or self.upstream.total_seconds)
        return self.begun_at + most - time.monotonic()


class Gateway:
    """The upstreams of a process, with a pool of connections and a count of requests for each: one that is slow, or
    full, is no other's trouble. Used in one event loop."""

    def __init__(self, upstreams: Upstreams) -> None:
        self.upstreams = upstreams
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._going: Counter[str] = Counter()

    async def close(self) -> None:
        clients, self._clients = self._clients, {}
        await asyncio.gather(*(client.aclose() for client in clients.values()), return_exceptions=True)

    def requests(self, upstream: Upstream) -> int:
        """How many are with it now."""
        return self._going[upstream.name]

    @contextmanager
    def slot(self, upstream: Upstream) -> Iterator[None]:
        """A request's place among those that are with the upstream.

        Raises:
            UpstreamBusy: all are taken.
        """
        if self._going[upstream.name] >= upstream.max_concurrent:
            raise UpstreamBusy(
                f"{upstream.max_concurrent} requests are with upstream {upstream.name!r} already, the most at once "
                "(`max_concurrent`); send it again later",
                _BUSY_SECONDS,
            )
        self._going[upstream.name] += 1
        try:
            yield
        finally:
            self._going[upstream.name] -= 1

    @asynccontextmanager
    async def answered(self, call: UpstreamCall, path: str) -> AsyncGenerator[httpx.Response, None]:
        """The upstream's answer, of which the head has come.

        Raises:
            UpstreamBusy: too many are with it already.
            OutboundFailed, OutboundTimedOut: it can't be reached, or does not begin to answer.
        """
        with self.slot(call.upstream):
            # Whole replies have a head when they are ready, so only the time for all of it counts.
            patience = call.upstream.first_byte_seconds if call.streams else call.upstream.total_seconds
            patience = min(patience, call.seconds_left)
            response = await within(patience, self._send(call, path, time.monotonic() + patience), call)
            try:
                yield response
            finally:
                await response.aclose()

    def _client(self, upstream: Upstream) -> httpx.AsyncClient:
        if upstream.name not in self._clients:
            self._clients[upstream.name] = open_upstream(upstream)
        return self._clients[upstream.name]

    async def _send(self, call: UpstreamCall, path: str, until: float) -> httpx.Response:
        """The response, whatever it says. A wait that would not end by `until` is not begun."""
        client, attempt = self._client(call.upstream), 0
        timeout = httpx.Timeout(None, connect=call.upstream.connect_seconds)  # the rest is held by who waits
        headers = {"Content-Type": "application/json"}
        headers["Accept"] = "text/event-stream" if call.streams else "application/json"
        while True:
            request = client.build_request("POST", path, content=call.content, headers=headers, timeout=timeout)
            try:
                response = await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if attempt >= call.upstream.retries:
                    raise failed(call, "can't be reached", error) from error
                wait = random.uniform(0.5, 1) * _FIRST_WAIT_SECONDS * 2**attempt  # noqa: S311  # no secret
            except (httpx.TransportError, AddressRefused) as error:
                raise failed(call, "could not be asked", error) from error
            else:
                wait_seconds = _requested_wait(response, min(call.upstream.retry_seconds, until - time.monotonic()))
                if wait_seconds is None or attempt >= call.upstream.retries:
                    return response
                await response.aclose()
                wait = wait_seconds
            attempt += 1
            await asyncio.sleep(wait)


async def within(seconds: float, work: Awaitable[T], call: UpstreamCall) -> T:
    """What `work` gives, if it does in time.

    Raises:
        OutboundTimedOut: it does not; it was cancelled.
    """
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            return await work
    except TimeoutError as error:
        raise OutboundTimedOut(
            f"upstream {call.upstream.name!r} did not go on answering within {max(seconds, 0.0):.3g} s; it was given up"
        ) from error


def failed(call: UpstreamCall, what: str, reason: Exception | str) -> OutboundFailed:
    """The error to raise. The reason is for the log alone: it may say where the upstream is."""
    log.warning("an upstream failed", upstream=call.upstream.name, completion=call.id, what=what, reason=str(reason))
    return OutboundFailed(f"upstream {call.upstream.name!r} {what}")


def _requested_wait(response: httpx.Response, most_seconds: float) -> float | None:
    """Seconds after which the upstream wants a refused request again; None for other answers, and longer waits."""
    if response.status_code not in _TAKEN_NOT:
        return None
    try:
        if "retry-after-ms" in response.headers:
            seconds = float(response.headers["retry-after-ms"]) / 1000
        else:
            seconds = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return seconds if 0 <= seconds <= most_seconds else None
