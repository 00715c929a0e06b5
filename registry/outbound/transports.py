"""A transport of httpx that connects to checked addresses only.

A name is resolved for each connection, each address is checked, and the connection goes to the address that was
checked: a name that is resolved to another address a moment later (rebinding) gains nothing. TLS still verifies the
name. No proxy of the environment is used: it would resolve and connect for us.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import anyio
import httpcore
import httpx

from registry.outbound.addresses import AddressPolicy

_SocketOptions = Iterable[httpcore.SOCKET_OPTION]
_Found = list[tuple[Any, ...]]
_LATE = "not connected in time"


@cache
def _authorities() -> ssl.SSLContext:
    """Whom TLS trusts, as httpx finds it. Read once: that takes longer than most requests, and clients come and go."""
    return httpx.create_ssl_context()


class CheckedTransport(httpx.AsyncHTTPTransport):
    def __init__(self, policy: AddressPolicy, limits: httpx.Limits) -> None:
        super().__init__(verify=_authorities())
        # httpx has no argument for where its connections go; a test holds that these lines still decide it.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_authorities(),
            network_backend=_CheckedBackend(policy),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        # No redirect is followed. httpx reads where it leads all the same, and raises what is no error of a transport.
        response.headers.pop("location", None)
        # No cookie is kept: one client speaks for many projects, and a cookie would lead all of them to one server.
        response.headers.pop("set-cookie", None)
        return response


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._sockets = httpcore.AnyIOBackend()
        self._names = _Names()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _SocketOptions | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failed: httpcore.NetworkError | httpcore.ConnectTimeout | None = None
        try:
            with anyio.fail_after(timeout) as scope:
                addresses = self._policy.allowed(host, await self._resolve(host, port))
                for place, address in enumerate(addresses):
                    # A part of the time for each: the way to one may be dead, most often that of IPv6.
                    share = (scope.deadline - anyio.current_time()) / (len(addresses) - place)
                    try:
                        return await self._sockets.connect_tcp(address, port, share, local_address, socket_options)
                    except httpcore.NetworkError as error:
                        failed = error
                    except httpcore.ConnectTimeout:
                        failed = httpcore.ConnectTimeout(_LATE)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(_LATE) from error
        raise failed or httpcore.ConnectError(_unresolved(host))

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def _resolve(self, host: str, port: int) -> Sequence[str]:
        """The addresses, each once. A zone (`fe80::1%eth0`) belongs to link-local ones, which are refused anyway."""
        try:
            found = await self._names.look_up(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(_unresolved(host)) from error
        return list(dict.fromkeys(str(place[0]).partition("%")[0] for *_, place in found))


class _Names:
    """Look-ups of names, each in a thread of its own, and none twice at once.

    A name whose server is silent is waited for beyond every time-out, and can't be given up. So it holds one thread for
    all connections that want it, and none of those that the event loop lends to others: these would soon be all taken.
    """

    def __init__(self) -> None:
        self._looking: dict[tuple[str, int], asyncio.Future[_Found]] = {}

    async def look_up(self, host: str, port: int) -> _Found:
        place = host, port
        if place not in self._looking:
            self._looking[place] = _in_a_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            self._looking[place].add_done_callback(lambda _: self._looking.pop(place))
        return await asyncio.shield(self._looking[place])  # one that waits no longer leaves it to the others


def _in_a_thread(look_up: Callable[[], _Found]) -> asyncio.Future[_Found]:
    loop = asyncio.get_running_loop()
    result: asyncio.Future[_Found] = loop.create_future()

    def settle(found: _Found | None, error: Exception | None) -> None:
        if result.done():
            return
        if error is None:
            result.set_result(found or [])
        else:
            result.set_exception(error)
            result.exception()  # whoever waited may have gone

    def run() -> None:
        found, failed = None, None
        try:
            found = look_up()
        except Exception as error:
            failed = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, found, failed)

    threading.Thread(target=run, name="name-look-up", daemon=True).start()
    return result


def _unresolved(host: str) -> str:
    return f"no address is known of {host[:253]!r}"
