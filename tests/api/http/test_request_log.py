"""One line a request, at its end."""

import asyncio
from typing import Any

import pytest
import structlog
from structlog.contextvars import get_contextvars
from structlog.testing import LogCapture

from api.http.request_log import RequestLog


def test_a_stream_is_logged_when_its_last_byte_went_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # A logger of its own: an earlier test of this process may have configured structlog, and module loggers keep that.
    capture = LogCapture()
    own = structlog.wrap_logger(structlog.PrintLogger(), processors=[capture], wrapper_class=structlog.BoundLogger)
    monkeypatch.setattr("api.http.request_log.log", own)
    logs = capture.entries
    sent: list[Any] = []
    bound: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        bound.append(get_contextvars()["request"])
        await send({"type": "http.response.start", "status": 201, "headers": []})
        for more in (True, False):
            await asyncio.sleep(0.05)
            assert logs == []
            await send({"type": "http.response.body", "body": b"x", "more_body": more})

    async def send(message: Any) -> None:
        sent.append(message)

    def request(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
        return {"type": "http", "method": "GET", "path": "/x", "headers": list(headers)}

    async def nothing() -> Any: ...

    asyncio.run(RequestLog(app)(request((b"x-request-id", b"mine")), nothing, send))
    [line] = logs
    assert (line["method"], line["path"], line["status"]) == ("GET", "/x", 201)
    assert line["seconds"] >= 0.1
    logs.clear()
    asyncio.run(RequestLog(app)(request(), nothing, send))
    ids = [dict(message["headers"])[b"x-request-id"].decode() for message in sent if "headers" in message]
    assert ids == bound
    assert ids[0] == "mine"
    assert len(ids[1]) == 32
