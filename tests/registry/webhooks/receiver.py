"""A receiver of webhooks: a real HTTP server on the loopback that answers as a test tells it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes
    began: float
    ended: float = 0.0


Answer = Callable[[BaseHTTPRequestHandler, Received], None]


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    def _answer(handler: BaseHTTPRequestHandler, _: Received) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return _answer


@dataclass
class Receiver:
    url: str
    received: list[Received] = field(default_factory=list)
    answer: Answer = field(default_factory=lambda: status(204))
    released: threading.Event = field(default_factory=threading.Event)
    """Set in the end: answers that hang wait for it."""

    def hang(self, _: BaseHTTPRequestHandler, __: Received) -> None:
        self.released.wait(60)

    def drip(self, code: int, *, headers: bool) -> Answer:
        """An answer that goes on for a minute, a byte now and then: its headers, or its body."""

        def _answer(handler: BaseHTTPRequestHandler, _: Received) -> None:
            beginning = f"HTTP/1.1 {code} X\r\nX-Slow: " if headers else f"HTTP/1.1 {code} X\r\nX-Slow: no\r\n\r\n"
            handler.wfile.write(beginning.encode())
            while not self.released.wait(0.1):
                handler.wfile.write(b"x")
                handler.wfile.flush()

        return _answer

    @property
    def ids(self) -> list[str]:
        return [each.headers["webhook-id"] for each in self.received]


@contextmanager
def receiving() -> Iterator[Receiver]:
    class _Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            got = Received(self.path, headers, body, time.monotonic())
            receiver.received.append(got)
            with suppress(OSError):  # the sender has gone
                receiver.answer(self, got)
            got.ended = time.monotonic()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = False
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
