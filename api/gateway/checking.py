"""Whether an upstream can be used from here: its list of models, asked for with its key."""

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from registry.errors import AddressRefused, OutboundFailed
from registry.outbound.clients import read_bounded
from registry.upstreams import ANY_MODEL, Upstream, open_upstream
from registry.wording import counted

_MOST_BYTES = 4_000_000
_MOST_SECONDS = 15.0
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class UpstreamCheck:
    name: str
    ok: bool
    """Whether it answered, took the key, and lists what may be requested of it, where it lists anything."""
    detail: str
    seconds: float
    models: int | None
    """How many models it lists; None where it lists none."""
    missing: tuple[str, ...]
    """Models that may be requested and that it does not list."""


def check_upstream(upstream: Upstream) -> UpstreamCheck:
    """Ask it. Blocks for some seconds at most."""
    began = time.monotonic()
    try:
        status, body = asyncio.run(_models(upstream))
    except (httpx.HTTPError, OutboundFailed, AddressRefused, TimeoutError) as error:
        reason = str(error) or f"no whole answer within {_MOST_SECONDS:g} s"
        reason = upstream.without_key(reason)[:_SHOWN_CHARACTERS]
        return UpstreamCheck(upstream.name, False, f"can't be used: {reason}", time.monotonic() - began, None, ())
    listed = _listed(body) if status == 200 else None
    missing = [model for model in upstream.models if listed is not None and model not in (*listed, ANY_MODEL)]
    return UpstreamCheck(
        upstream.name,
        (listed is not None and not missing) or status == 404,
        _detail(upstream, status, body, listed, missing),
        time.monotonic() - began,
        None if listed is None else len(listed),
        tuple(missing),
    )


async def _models(upstream: Upstream) -> tuple[int, bytes]:
    """Status and body of its list of models. Raises TimeoutError: it is not whole in time, however it trickles."""
    async with (
        asyncio.timeout(_MOST_SECONDS),
        open_upstream(upstream) as client,
        client.stream("GET", "models", timeout=httpx.Timeout(None, connect=upstream.connect_seconds)) as response,
    ):
        return response.status_code, await read_bounded(response, _MOST_BYTES)


def _detail(upstream: Upstream, status: int, body: bytes, listed: frozenset[str] | None, missing: list[str]) -> str:
    if status == 404:
        return "it answers, and lists no models (404); if it has such a list, base_url lacks a part, such as /v1"
    if status != 200:
        shown = upstream.without_key(body[:4096].decode("utf-8", "replace"))[:_SHOWN_CHARACTERS]
        return f"it answered {status}: {shown}"
    if listed is None:
        return "it answers, and its list of models can't be read"
    return (
        f"it does not list {', '.join(missing)}"
        if missing
        else f"it answers, and lists {counted(len(listed), 'model')}"
    )


def _listed(body: bytes) -> frozenset[str] | None:
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        found: Any = json.loads(body)["data"]
        return frozenset(str(each["id"]) for each in found)
    return None
