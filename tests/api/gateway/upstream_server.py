"""A real HTTP server that plays an upstream: each test says what it sends, byte by byte, and when it hangs."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass
class Received:
    """One request, as it came, and the way to answer it."""

    handler: BaseHTTPRequestHandler
    body: Json
    headers: dict[str, str]
    path: str
    left: threading.Event = field(default_factory=threading.Event)
    """Set when the other side was seen to go away."""

    def reply(self, body: Any, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.handler.send_response(status)
        sent = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in sent.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        self.handler.wfile.write(data)

    def begin(self, kind: str = "text/event-stream") -> None:
        self.handler.send_response(200)
        self.handler.send_header("Content-Type", kind)
        self.handler.send_header("Transfer-Encoding", "chunked")
        self.handler.end_headers()
        self.handler.wfile.flush()

    def send(self, data: bytes) -> None:
        self.handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.handler.wfile.flush()

    def event(self, chunk: Json) -> None:
        self.send(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def end(self) -> None:
        self.handler.wfile.write(b"0\r\n\r\n")
        self.handler.wfile.flush()

    def break_off(self) -> None:
        self.handler.connection.shutdown(socket.SHUT_RDWR)
        self.handler.close_connection = True

    def wait_until_left(self, seconds: float = 10.0) -> bool:
        """Whether the client closed the connection in that time."""
        self.handler.connection.settimeout(seconds)
        try:
            gone = self.handler.connection.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            gone = True
        self.handler.close_connection = True
        if gone:
            self.left.set()
        return gone


class UpstreamServer:
    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: list[Received] = []
        self.play: Callable[[Received], object] = say_hello
        self.lock = threading.Lock()

    def wait_for(self, count: int, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while len(self.seen) < count:
            assert time.monotonic() < deadline, f"{len(self.seen)} requests came, not {count}"
            time.sleep(0.01)


def chunk(delta: Json, *, index: int = 0, finish: str | None = None, **more: Any) -> Json:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    head = {"id": "chatcmpl-theirs", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5-real"}
    return {**head, "choices": [choice], **more}


def completion(message: Json, finish: str = "stop", **more: Any) -> Json:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    head = {"id": "chatcmpl-theirs", "object": "chat.completion", "created": 1, "model": "gpt-5-real"}
    return {**head, "choices": [choice], "usage": usage, **more}


HELLO = (
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Hel"}),
    chunk({"content": "lo"}),
    chunk({}, finish="stop"),
)


def say_hello(request: Received) -> None:
    if not request.body.get("stream"):
        request.reply(completion({"content": "Hello"}))
        return
    request.begin()
    for each in HELLO:
        request.event(each)
    request.send(b"data: [DONE]\n\n")
    request.end()


@contextmanager
def run_upstream() -> Iterator[UpstreamServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received = Received(self, body, dict(self.headers), self.path)
            with playing.lock:
                playing.seen.append(received)
            try:
                playing.play(received)
            except (BrokenPipeError, ConnectionResetError):
                received.left.set()
                self.close_connection = True

        def do_GET(self) -> None:
            received = Received(self, {}, dict(self.headers), self.path)
            with playing.lock:
                playing.seen.append(received)
            playing.play(received)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # connections that a test breaks off

    server = Server(("127.0.0.1", 0), Handler)
    playing = UpstreamServer(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield playing
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
