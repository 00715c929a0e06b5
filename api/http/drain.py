"""How far a process is with leaving: in service, draining (it answers, but is not ready), or closed to new work.

A proxy takes a process out of service when its readiness says so, which it sees only when it looks next. So a process
that is to stop goes on answering for a notice, and each answer then ends its connection: no proxy should send the next
request over one that is about to be closed.
"""

import threading
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Drain:
    """Written by the server, read by whoever answers; from any thread."""

    def __init__(self) -> None:
        self.began_at: float | None = None
        """By the monotonic clock; None while the process is in service."""
        self._closed = threading.Event()

    def begin(self) -> bool:
        """Be ready no longer. Whether this began it."""
        if self.began_at is not None:
            return False
        self.began_at = time.monotonic()
        return True

    def close(self) -> None:
        """No connection is accepted any more; what would never end by itself should end now."""
        self.begin()
        self._closed.set()

    @property
    def has_begun(self) -> bool:
        return self.began_at is not None

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()


class ConnectionsEnd:
    """Middleware: while the process drains, an answer is its connection's last."""

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self._app, self._drain = app, drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._drain.has_begun:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_last if scope["type"] == "http" else send)
