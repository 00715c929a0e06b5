"""Answers an error that no handler expected, so that it costs the client one answer and not its connection."""

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import answer

log = structlog.get_logger()


class LastResort:
    """Middleware. Once an answer has begun, only the end of the connection can say that it broke off."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if has_begun or scope["type"] != "http":
                raise
            await answer(Request(scope), error)(scope, receive, send)
