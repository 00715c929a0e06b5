"""The clients by which the service itself speaks to others: webhooks, judges, upstreams.

They connect to allowed addresses only, follow no redirect (it could lead anywhere), read no proxy and no `.netrc` of
the environment, and ask for plain bytes: what is compressed has no length that could be bounded before.
"""

import math
import time
from collections.abc import Mapping
from typing import Any

import httpx

from registry.errors import OutboundFailed
from registry.outbound.addresses import AddressPolicy
from registry.outbound.transports import AsyncCheckedTransport, CheckedTransport

_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=30.0)


def make_client(
    policy: AddressPolicy,
    *,
    timeout: httpx.Timeout | float,
    base_url: str = "",
    headers: Mapping[str, str] | None = None,
    limits: httpx.Limits = _LIMITS,
) -> httpx.Client:
    """A client to be closed by the caller; its requests raise AddressRefused beside httpx's own errors."""
    return httpx.Client(
        transport=CheckedTransport(policy, limits), **_options(base_url=base_url, headers=headers, timeout=timeout)
    )


def make_async_client(
    policy: AddressPolicy,
    *,
    timeout: httpx.Timeout | float,
    base_url: str = "",
    headers: Mapping[str, str] | None = None,
    limits: httpx.Limits = _LIMITS,
) -> httpx.AsyncClient:
    """As `make_client`, for an event loop."""
    return httpx.AsyncClient(
        transport=AsyncCheckedTransport(policy, limits), **_options(base_url=base_url, headers=headers, timeout=timeout)
    )


def read_bounded(response: httpx.Response, most_bytes: int, *, seconds: float = math.inf) -> bytes:
    """The body of a response that was opened with `client.stream`.

    Args:
        seconds: time for all of it. The client's own limit is for each read, which a byte now and then never exceeds.

    Raises:
        OutboundFailed: it is longer, takes longer, or is compressed though that was not requested.
        httpx.TransportError: it broke off.
    """
    check_plain(response)
    body, deadline = bytearray(), time.monotonic() + seconds
    for part in response.iter_raw():
        if time.monotonic() > deadline:
            raise OutboundFailed(f"the answer of {response.url.host} was not whole within {seconds:g} s")
        body += part
        if len(body) > most_bytes:
            raise OutboundFailed(f"the answer of {response.url.host} is longer than {most_bytes} bytes")
    return bytes(body)


def check_plain(response: httpx.Response) -> None:
    """Raises OutboundFailed: the body is compressed, though plain bytes were requested."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise OutboundFailed(f"{response.url.host} answered in {encoding[:40]!r}, though plain bytes were requested")


def _options(*, base_url: str, headers: Mapping[str, str] | None, timeout: httpx.Timeout | float) -> dict[str, Any]:
    return {
        "base_url": base_url,
        "headers": {"Accept-Encoding": "identity", "User-Agent": "memgen", **(headers or {})},
        "timeout": timeout,
        "follow_redirects": False,
        "trust_env": False,
    }
