"""Clients that connect to checked addresses only, against real servers on the loopback."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest

from registry.errors import AddressRefused, OutboundFailed
from registry.outbound.addresses import AddressPolicy
from registry.outbound.clients import make_client, read_bounded

PRIVATE, PUBLIC = AddressPolicy(private=True), AddressPolicy()


class _Hello(BaseHTTPRequestHandler):
    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", unquote(self.path.removeprefix("/away/")))
        else:
            self.send_response(200)
        if self.path == "/packed":
            self.send_header("Content-Encoding", "gzip")
        if self.path == "/cookie":
            self.send_header("Set-Cookie", "AWSALB=one-server; Path=/")
        body = b"x" * 5000
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hello)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _get(policy: AddressPolicy, url: str, timeout: float = 5) -> httpx.Response:
    async def get() -> httpx.Response:
        async with make_client(policy, timeout=timeout) as client:
            return await client.get(url)

    return asyncio.run(get())


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0", "[::ffff:7f00:1]"]
)
def test_every_spelling_of_the_loopback_is_refused(host: str, server: ThreadingHTTPServer) -> None:
    with pytest.raises(AddressRefused):
        _get(PUBLIC, f"http://{host}:{server.server_port}/")
    assert server.seen == []


def test_what_is_allowed_is_reached(server: ThreadingHTTPServer) -> None:
    found = _get(PRIVATE, f"http://localhost:{server.server_port}/")
    assert found.status_code == 200
    [headers] = server.seen
    assert headers["Host"] == f"localhost:{server.server_port}", "the name is sent, not the address"
    assert headers["Accept-Encoding"] == "identity"


def test_a_name_that_changes_its_address_gains_nothing(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first address is allowed, where nothing listens. A second look-up would lead to the server."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "rebind.example":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        address = "127.0.0.1" if len(asked) > 1 else "127.0.0.9"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with pytest.raises(httpx.ConnectError):
        _get(AddressPolicy(networks=(ip_network("127.0.0.9"),)), f"http://rebind.example:{server.server_port}/")
    assert asked == ["rebind.example"]
    assert server.seen == []


def test_the_connection_goes_to_the_address_that_was_checked(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def once(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "once.example":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", once)
    assert _get(PRIVATE, f"http://once.example:{server.server_port}/").status_code == 200
    assert asked == ["once.example"]


def test_a_second_address_is_tried_where_the_first_is_dead(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def two(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "two.example":
            return real(host, port, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.9", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    assert _get(PRIVATE, f"http://two.example:{server.server_port}/").status_code == 200


def test_a_second_address_is_tried_where_the_first_is_silent(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a network has addresses of IPv6, and no way out for them."""
    real = socket.getaddrinfo

    def two(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "two.example":
            return real(host, port, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.9", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with ExitStack() as stack:
        mute = stack.enter_context(socket.create_server(("127.0.0.9", server.server_port), backlog=0))
        for _ in range(8):  # its queue is full: it answers no more connections
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(mute.getsockname())
        with pytest.raises(httpx.ConnectTimeout):
            _get(PRIVATE, f"http://127.0.0.9:{server.server_port}/", timeout=0.5)
        assert _get(PRIVATE, f"http://two.example:{server.server_port}/", timeout=2).status_code == 200


@pytest.mark.parametrize(
    "place", ["http://169.254.169.254/", "http:///", "http://[::1", "//", "http://a:99999999/", ""]
)
def test_no_redirect_is_followed_wherever_it_leads(place: str, server: ThreadingHTTPServer) -> None:
    assert _get(PRIVATE, f"http://127.0.0.1:{server.server_port}/away/{quote(place, safe='')}").status_code == 302
    assert len(server.seen) == 1


def test_no_proxy_of_the_environment_is_used(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect to what it likes."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(AddressRefused):
        _get(PUBLIC, "http://10.0.0.1/")
    assert server.seen == []


def test_a_name_that_nothing_knows_is_no_connection() -> None:
    for host in ("no-such-host.invalid", f"{'a' * 64}.example", "a..b"):
        with pytest.raises(httpx.ConnectError):
            _get(PUBLIC, f"http://{host}/")


def test_what_does_not_listen_is_no_connection() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(httpx.ConnectError):
            _get(PRIVATE, f"http://127.0.0.1:{free.getsockname()[1]}/")


def test_no_cookie_is_kept(server: ThreadingHTTPServer) -> None:
    """It would pin all requests of a process to one server behind a load balancer, and show one project to another."""

    async def ask_twice() -> None:
        async with make_client(PRIVATE, timeout=5) as client:
            for _ in range(2):
                await client.get(f"http://localhost:{server.server_port}/cookie")

    asyncio.run(ask_twice())
    assert [headers.get("Cookie") for headers in server.seen] == [None, None]


def test_a_body_is_read_up_to_its_bound(server: ThreadingHTTPServer) -> None:
    url = f"http://127.0.0.1:{server.server_port}"

    async def read(path: str, most: int) -> bytes:
        async with make_client(PRIVATE, timeout=5) as client, client.stream("GET", f"{url}{path}") as response:
            return await read_bounded(response, most)

    assert asyncio.run(read("/", 5000)) == b"x" * 5000
    with pytest.raises(OutboundFailed, match="longer than 4999"):
        asyncio.run(read("/", 4999))
    with pytest.raises(OutboundFailed, match="gzip"):
        asyncio.run(read("/packed", 5000))


def test_a_name_whose_server_is_silent_is_nobody_else_s_trouble(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many connections wait for it: neither other names, nor what the event loop's threads do."""
    silent, looked_up = threading.Event(), []
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host == "silent.example":
            looked_up.append(host)
            silent.wait(20)
            raise socket.gaierror("no answer")
        return real(host, port, *args, **kwargs)

    async def work() -> int:
        async with make_client(PRIVATE, timeout=5) as client:
            waiting = [asyncio.ensure_future(client.get("http://silent.example/")) for _ in range(80)]
            await asyncio.sleep(0.1)
            found = await client.get(f"http://localhost:{server.server_port}/", timeout=2)
            await asyncio.wait_for(asyncio.to_thread(lambda: None), 2)
            silent.set()
            failed = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(each) for each in failed} == {httpx.ConnectError}
        return found.status_code

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        assert asyncio.run(work()) == 200
    finally:
        silent.set()
    assert looked_up == ["silent.example"]
