"""Replies that are not this service's, and streams that say nothing: a clear error in time, from each client."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from memgen_client import ApiUnreachable, AsyncClient, Client, JsonClient, NotFound, UnexpectedReply, WaitTimedOut

REPLIES: dict[str, tuple[dict[str, str], bytes]] = {
    "html": ({}, b"<html>Sign in</html>"),
    "not packed": ({"Content-Encoding": "gzip"}, b"plain"),
    "deep": ({}, b"[" * 200_000),
    "no object": ({}, b"[1]"),
    "of another API": ({}, b'{"object": "list"}'),
    "of another release": ({}, b'{"data": [{"id": "x"}], "next_cursor": null}'),
}
STREAM = {"Content-Type": "text/event-stream", "Connection": "close"}


@pytest.fixture
def answering() -> Iterator[Callable[[Callable[[BaseHTTPRequestHandler], None]], str]]:
    """Starts a server whose every request is handled by what it is given; returns its URL."""
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(handle: Callable[[BaseHTTPRequestHandler], None]) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                handle(self)

            do_POST = do_GET

            def log_request(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.handle_error = lambda *_: None  # of clients that leave
        thread = threading.Thread(target=server.serve_forever, name="foreign-server")
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


def reply(headers: dict[str, str], body: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def handle(request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers.get("Content-Length", 0)))
        request.send_response(200)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return handle


CALLS: dict[str, Callable[[Any], Any]] = {
    "once": lambda client: client.keys.list(),
    "pages": lambda client: list(client.jobs.all()),
    "followed": lambda client: list(client.jobs.follow("x")),
    "written": lambda client: list(client.chat.stream("base", [])),
}


@pytest.mark.parametrize("kind", [Client, JsonClient])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", REPLIES)
def test_what_another_server_says_is_not_taken_for_an_answer(
    name: str, call: str, kind: type[Client] | type[JsonClient], answering: Any
) -> None:
    with kind(answering(reply(*REPLIES[name])), "mg_any") as client, pytest.raises(UnexpectedReply):
        CALLS[call](client)


@pytest.mark.parametrize("name", REPLIES)
def test_nor_by_the_asynchronous_client(name: str, answering: Any) -> None:
    url = answering(reply(*REPLIES[name]))

    async def story() -> None:
        async with AsyncClient(url, "mg_any") as client:
            with pytest.raises(UnexpectedReply):
                await client.keys.list()
            with pytest.raises(UnexpectedReply):
                [each async for each in client.jobs.all()]
            with pytest.raises(UnexpectedReply):
                [each async for each in client.jobs.follow("x")]

    asyncio.run(story())


def test_a_stream_that_ends_without_a_word_is_not_followed_for_ever(answering: Any) -> None:
    with Client(answering(reply(STREAM, b"")), "mg_any") as client, pytest.raises(ApiUnreachable, match="broke off"):
        list(client.jobs.follow("x", patience_seconds=0.1))


def test_a_wait_ends_in_time_where_the_stream_has_comments_alone(answering: Any) -> None:
    """As it has while the service's database is away."""
    asked: list[str] = []

    def handle(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        if len(asked) > 2:  # it waited for longer than it was told to
            request.send_response(404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(200)
        for name, value in STREAM.items():
            request.send_header(name, value)
        request.end_headers()
        request.close_connection = True
        try:
            for _ in range(80):
                request.wfile.write(b": the database does not answer\n\n")
                stop.wait(0.05)
        except OSError:
            pass  # the client has left

    stop = threading.Event()
    try:
        with Client(answering(handle), "mg_any") as client, pytest.raises((WaitTimedOut, NotFound)) as ended:
            client.jobs.wait("x", timeout=0.5)
        assert isinstance(ended.value, WaitTimedOut)
    finally:
        stop.set()


def test_bytes_that_are_no_text_are_no_answer(answering: Any) -> None:
    with Client(answering(reply(STREAM, b"data: \xff\xfe\n\n")), "mg_any") as client, pytest.raises(UnexpectedReply):
        list(client.chat.stream("base", []))
