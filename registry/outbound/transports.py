"""Transports of httpx that connect to checked addresses only.

A name is resolved once for each connection, each address is checked, and the connection goes to the address that was
checked: a name that is resolved to another address a moment later (rebinding) gains nothing. TLS still verifies the
name. No proxy of the environment is used: it would resolve and connect for us.
"""

import asyncio
import socket
import time
from collections.abc import Iterable, Sequence
from typing import Any

import anyio
import httpcore
import httpx

from registry.outbound.addresses import AddressPolicy

_SocketOptions = Iterable[httpcore.SOCKET_OPTION]


class _CheckedBackend(httpcore.NetworkBackend):
    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _SocketOptions | None = None,
    ) -> httpcore.NetworkStream:
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(_unresolved(host)) from error
        failed: httpcore.NetworkError | httpcore.TimeoutException | None = None
        for address in self._policy.allowed(host, _addresses(found)):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            try:
                return self._sockets.connect_tcp(address, port, left, local_address, socket_options or ())
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                failed = error
        raise failed or httpcore.ConnectTimeout("not connected in time")

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class _AsyncCheckedBackend(httpcore.AsyncNetworkBackend):
    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _SocketOptions | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failed: httpcore.NetworkError | None = None
        try:
            with anyio.fail_after(timeout):
                for address in self._policy.allowed(host, await _resolve(host, port)):
                    try:
                        return await self._sockets.connect_tcp(address, port, None, local_address, socket_options)
                    except httpcore.NetworkError as error:
                        failed = error
        except TimeoutError as error:
            raise httpcore.ConnectTimeout("not connected in time") from error
        raise failed or httpcore.ConnectError(_unresolved(host))

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class CheckedTransport(httpx.HTTPTransport):
    def __init__(self, policy: AddressPolicy, limits: httpx.Limits) -> None:
        super().__init__()
        self._pool.close()
        # httpx has no argument for where its connections go; a test holds that these lines still decide it.
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(), network_backend=_CheckedBackend(policy), **_pool(limits)
        )


class AsyncCheckedTransport(httpx.AsyncHTTPTransport):
    def __init__(self, policy: AddressPolicy, limits: httpx.Limits) -> None:
        super().__init__()
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(), network_backend=_AsyncCheckedBackend(policy), **_pool(limits)
        )


def _pool(limits: httpx.Limits) -> dict[str, Any]:
    return {
        "max_connections": limits.max_connections,
        "max_keepalive_connections": limits.max_keepalive_connections,
        "keepalive_expiry": limits.keepalive_expiry,
    }


async def _resolve(host: str, port: int) -> Sequence[str]:
    try:
        return _addresses(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(_unresolved(host)) from error


def _addresses(found: Iterable[tuple[int, int, int, str, tuple[object, ...]]]) -> Sequence[str]:
    """The addresses, each once. A zone (`fe80::1%eth0`) belongs to link-local ones, which are refused anyway."""
    return list(dict.fromkeys(str(place[0]).partition("%")[0] for *_, place in found))


def _unresolved(host: str) -> str:
    return f"no address is known of {host[:253]!r}"
