"""The clients by which the service itself speaks to others: webhooks, judges, upstreams.

They connect to allowed addresses only, follow no redirect (it could lead anywhere), keep no cookie, read no proxy and
no `.netrc` of the environment, and ask for plain bytes: what is compressed has no length that could be bounded before.
"""

from collections.abc import Mapping

import httpx

from registry.errors import OutboundFailed
from registry.outbound.addresses import AddressPolicy
from registry.outbound.transports import CheckedTransport

_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=30.0)


def make_client(
    policy: AddressPolicy,
    *,
    timeout: httpx.Timeout | float,
    base_url: str = "",
    headers: Mapping[str, str] | None = None,
    limits: httpx.Limits = _LIMITS,
) -> httpx.AsyncClient:
    """A client to be closed by the caller; its requests raise AddressRefused beside httpx's own errors.

    Args:
        timeout: for each step of a request. A byte now and then never exceeds it: the caller bounds the whole.
    """
    return httpx.AsyncClient(
        transport=CheckedTransport(policy, limits),
        base_url=base_url,
        headers={"Accept-Encoding": "identity", "User-Agent": "memgen", **(headers or {})},
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
    )


async def read_bounded(response: httpx.Response, most_bytes: int) -> bytes:
    """The body of a response that was opened with `client.stream`.

    Raises:
        OutboundFailed: it is longer, or is compressed though that was not requested.
        httpx.TransportError: it broke off.
    """
    check_plain(response)
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > most_bytes:
            raise OutboundFailed(f"the answer of {response.url.host} is longer than {most_bytes} bytes")
    return bytes(body)


def check_plain(response: httpx.Response) -> None:
    """Raises OutboundFailed: the body is compressed, though plain bytes were requested."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise OutboundFailed(f"{response.url.host} answered in {encoding[:40]!r}, though plain bytes were requested")
