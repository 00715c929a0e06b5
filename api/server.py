"""The API as a process, one of its replicas, that leaves without breaking off answers: `python -m api.server`.

On SIGTERM:
1. `/readyz` answers 503 at once. Requests are still answered for `drain_notice_seconds`, each ending its connection:
   the time that a proxy needs to see it and to send new ones elsewhere.
2. No connection is accepted any more, idle ones are closed, and event streams of jobs end. What is being answered is
   answered, for at most `drain_seconds`.
3. The engine ends what it is still answering: a stream gets an error event, any other request 503 with `Retry-After`.
   Whatever is not over two seconds later is cancelled.

SIGINT, from a terminal, skips the notice. A second signal of either kind goes on to 2, another SIGINT ends all waiting.
"""

import argparse
import asyncio
import math
import signal
import socket
import time
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from api.app import create_app
from api.http.drain import Drain
from registry.settings import Settings, load_settings

_KEEP_ALIVE_SECONDS = 620
"""Longer than proxies keep an idle connection (Google's longest: 600), so that it is they who close it. Closed here, a
request could be on its way over it."""
LAST_WORDS_SECONDS = 2.0
"""For what is left to be sent once the engine has ended the answers."""


class DrainingServer(uvicorn.Server):
    """uvicorn's, with a notice before it stops to accept, and a limit at which answers are ended in words."""

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Drain,
        end_answers: Callable[[], None],
        *,
        notice_seconds: float,
        drain_seconds: float,
    ) -> None:
        config.timeout_graceful_shutdown = math.ceil(drain_seconds + LAST_WORDS_SECONDS)
        super().__init__(config)
        self._drain, self._end_answers = drain, end_answers
        self._notice_seconds, self._drain_seconds = notice_seconds, drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        is_first = self._drain.begin()
        if not is_first or sig == signal.SIGINT:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        began_at = self._drain.began_at
        is_over = began_at is not None and time.monotonic() >= began_at + self._notice_seconds
        return await super().on_tick(counter) or is_over

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._drain.close()
        limit = asyncio.create_task(self._end_in_time())
        try:
            await super().shutdown(sockets)
        finally:
            limit.cancel()

    async def _end_in_time(self) -> None:
        await asyncio.sleep(self._drain_seconds)
        await asyncio.to_thread(self._end_answers)


def make_server(
    settings: Settings, *, host: str, port: int, notice_seconds: float, drain_seconds: float
) -> DrainingServer:
    drain = Drain()
    app = create_app(settings, drain=drain)
    config = uvicorn.Config(app, host=host, port=port, access_log=False, timeout_keep_alive=_KEEP_ALIVE_SECONDS)

    def end_answers() -> None:
        app.state.inference.stop()

    return DrainingServer(config, drain, end_answers, notice_seconds=notice_seconds, drain_seconds=drain_seconds)


def main(arguments: Sequence[str] | None = None) -> None:
    settings = load_settings()
    parser = argparse.ArgumentParser(prog="python -m api.server", description="The API, until SIGTERM or Ctrl-C.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=settings.api_port or 8000)
    parser.add_argument("--notice-seconds", type=float, default=settings.drain_notice_seconds)
    parser.add_argument("--drain-seconds", type=float, default=settings.drain_seconds)
    chosen = parser.parse_args(arguments)
    make_server(
        settings,
        host=chosen.host,
        port=chosen.port,
        notice_seconds=chosen.notice_seconds,
        drain_seconds=chosen.drain_seconds,
    ).run()


if __name__ == "__main__":
    main()
