"""One request and its answer on the wire: counts the body, keeps answers that come early from being lost, and HEAD.

An answer may be sent before the body has come. A connection that is closed then would take the answer with it: the
client still sends, and a reset discards what it has not read. So the answer goes out whole, what still comes is read
and dropped for a while, and only then the connection closes.
"""

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

_SMALL_BYTES = 65_536
"""An unread body of this length costs less than a new connection."""
_LINGER_SECONDS = 30.0
_SILENCE_SECONDS = 2.0


class HeadIsAnswered(Exception):
    """Raised by `send` into an application whose stream nobody reads; the answer has been sent."""


class Exchange:
    """The two channels of a request, as an application gets them."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._receive, self._send = receive, send
        self._is_head = scope["method"] == "HEAD"
        self._waits_for_continue = headers.get("expect", "").lower() == "100-continue"
        declared = headers.get("content-length", "0")
        self.expects_body = declared != "0" or "transfer-encoding" in headers
        """Whether the head announces a body."""
        self._unread = self.expects_body
        """Whether some of it has not come yet."""
        self._is_small = declared.isdigit() and len(declared) < 9 and int(declared) <= _SMALL_BYTES
        self._is_small &= "transfer-encoding" not in headers
        self._limit: int | None = None
        self._setting = ""
        self._length = 0
        self._whole: bytes | None = None
        self._closing = False

    def allow(self, declared: int | None, limit: int, setting: str) -> None:
        """Let the body be read up to `limit` bytes. Raises HTTPException: it declares more."""
        self._limit, self._setting = limit, setting
        if declared is not None and declared > limit:
            raise self._too_large(f"{declared} bytes")

    async def read_whole(self) -> bytes:
        """The body, which `receive` then gives once more.

        Raises:
            HTTPException: it is longer than allowed.
            ClientDisconnect: the client went away.
        """
        body, more = bytearray(), True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self._whole = bytes(body)
        return self._whole

    async def receive(self) -> Message:
        """Raises HTTPException: the body is longer than allowed."""
        if self._whole is not None:
            body, self._whole = self._whole, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._receive()
        if message["type"] == "http.request":
            self._unread = message.get("more_body", False)
            self._length += len(message.get("body", b""))
            if self._limit is not None and self._length > self._limit:
                raise self._too_large("longer")
        else:
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._closing = self._unread and (self._waits_for_continue or not self._is_small)
            if self._closing:
                MutableHeaders(scope=message)["Connection"] = "close"
            await self._send(message)
            if self._is_head and _is_endless(message):
                await self._send({"type": "http.response.body", "body": b""})
                raise HeadIsAnswered
            return
        is_last = not message.get("more_body", False)
        if self._is_head:
            if not is_last:
                return
            message = {"type": "http.response.body", "body": b""}
        if is_last and self._closing and self._unread and not self._waits_for_continue:
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while self._unread:
                    async with asyncio.timeout(_SILENCE_SECONDS):
                        came = await self._receive()
                    self._unread = came["type"] == "http.request" and came.get("more_body", False)
        except TimeoutError:
            return

    def _too_large(self, got: str) -> HTTPException:
        return HTTPException(
            413, f"the body is {got}; this path takes up to {self._limit} bytes ({self._setting}, a setting of the API)"
        )


def _is_endless(start: Message) -> bool:
    return Headers(raw=start.get("headers", [])).get("content-type", "").startswith("text/event-stream")
