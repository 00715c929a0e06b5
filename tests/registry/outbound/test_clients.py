"""Clients that connect to checked addresses only, against real servers on the loopback."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import Any

import httpx
import pytest

from registry.errors import AddressRefused, OutboundFailed
from registry.outbound.addresses import AddressPolicy
from registry.outbound.clients import make_async_client, make_client, read_bounded

PRIVATE, PUBLIC = AddressPolicy(private=True), AddressPolicy()


class _Hello(BaseHTTPRequestHandler):
    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))  # type: ignore[attr-defined]
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/")
        else:
            self.send_response(200)
        if self.path == "/packed":
            self.send_header("Content-Encoding", "gzip")
        body = b"x" * 5000
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hello)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _get(policy: AddressPolicy, url: str) -> httpx.Response:
    with make_client(policy, timeout=5) as client:
        return client.get(url)


def _get_async(policy: AddressPolicy, url: str) -> httpx.Response:
    async def get() -> httpx.Response:
        async with make_async_client(policy, timeout=5) as client:
            return await client.get(url)

    return asyncio.run(get())


@pytest.mark.parametrize("get", [_get, _get_async])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0", "[::ffff:7f00:1]"]
)
def test_every_spelling_of_the_loopback_is_refused(get: Any, host: str, server: ThreadingHTTPServer) -> None:
    with pytest.raises(AddressRefused):
        get(PUBLIC, f"http://{host}:{server.server_port}/")
    assert server.seen == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("get", [_get, _get_async])
def test_what_is_allowed_is_reached(get: Any, server: ThreadingHTTPServer) -> None:
    found = get(PRIVATE, f"http://localhost:{server.server_port}/")
    assert found.status_code == 200
    [headers] = server.seen  # type: ignore[attr-defined]
    assert headers["Host"] == f"localhost:{server.server_port}", "the name is sent, not the address"
    assert headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("get", [_get, _get_async])
def test_a_name_that_changes_its_address_gains_nothing(
    get: Any, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
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
        get(AddressPolicy(networks=(ip_network("127.0.0.9"),)), f"http://rebind.example:{server.server_port}/")
    assert asked == ["rebind.example"]
    assert server.seen == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("get", [_get, _get_async])
def test_the_connection_goes_to_the_address_that_was_checked(
    get: Any, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def once(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "once.example":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", once)
    assert get(PRIVATE, f"http://once.example:{server.server_port}/").status_code == 200
    assert asked == ["once.example"]


@pytest.mark.parametrize("get", [_get, _get_async])
def test_a_second_address_is_tried_where_the_first_is_dead(
    get: Any, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def two(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "two.example":
            return real(host, port, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.9", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    assert get(PRIVATE, f"http://two.example:{server.server_port}/").status_code == 200


@pytest.mark.parametrize("get", [_get, _get_async])
def test_no_redirect_is_followed(get: Any, server: ThreadingHTTPServer) -> None:
    assert get(PRIVATE, f"http://127.0.0.1:{server.server_port}/away").status_code == 302
    assert len(server.seen) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("get", [_get, _get_async])
def test_no_proxy_of_the_environment_is_used(
    get: Any, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would connect to what it likes."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(AddressRefused):
        get(PUBLIC, "http://10.0.0.1/")
    assert server.seen == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("get", [_get, _get_async])
def test_a_name_that_nothing_knows_is_no_connection(get: Any) -> None:
    for host in ("no-such-host.invalid", f"{'a' * 64}.example", "a..b"):
        with pytest.raises(httpx.ConnectError):
            get(PUBLIC, f"http://{host}/")


@pytest.mark.parametrize("get", [_get, _get_async])
def test_what_does_not_listen_is_no_connection(get: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(httpx.ConnectError):
            get(PRIVATE, f"http://127.0.0.1:{free.getsockname()[1]}/")


def test_a_body_is_read_up_to_its_bound(server: ThreadingHTTPServer) -> None:
    url = f"http://127.0.0.1:{server.server_port}"
    with make_client(PRIVATE, timeout=5) as client:
        with client.stream("GET", url) as response:
            assert read_bounded(response, 5000) == b"x" * 5000
        with client.stream("GET", url) as response, pytest.raises(OutboundFailed, match="longer than 4999"):
            read_bounded(response, 4999)
        with client.stream("GET", f"{url}/packed") as response, pytest.raises(OutboundFailed, match="gzip"):
            read_bounded(response, 5000)
        with client.stream("GET", url) as response, pytest.raises(OutboundFailed, match="within"):
            read_bounded(response, 5000, seconds=-1)
