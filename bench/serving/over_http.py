"""The service over HTTP, as `memgen up` starts it: what a request costs beside its answer, and 1,000 at once."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from api.cli.stack import SUPERVISOR
from api.local.control import down, up
from bench.speed.ratios import Findings, InvalidRun, Ratio
from registry.settings import Settings, load_settings

_CHAT = "/v1/chat/completions"


def overhead_and_flood(settings: Settings, requests: int, at_once: int) -> Findings:
    """Keys `api_overhead_ms` and `queue_full_failed`."""
    with service(settings) as (url, key), httpx.Client(base_url=url, headers=_bearer(key), timeout=300) as client:
        spent = [_overhead(client, number) for number in range(requests + 5)][5:]
        flood = asyncio.run(_flood(url, key, at_once))
    answered, refused = flood["200"], flood["429"]
    if answered + refused == 0:
        raise InvalidRun(f"nothing was answered and nothing refused: {dict(flood)}")
    return Findings(
        (
            Ratio("api_overhead_ms", "a chat over HTTP less its answer's own time, milliseconds", tuple(spent)),
            Ratio(
                "queue_full_failed",
                f"of {at_once} requests at once, those neither answered nor refused with 429",
                (float(at_once - answered - refused),),
            ),
        ),
        {
            "how": "wall time at the client less `memgen.seconds` of the reply, which begins when the prompt is taken",
            "queue_full": {"at_once": at_once, "answered": answered, "refused": refused, "by_status": dict(flood)},
        },
    )


@contextmanager
def service(settings: Settings) -> Iterator[tuple[str, str]]:
    """URL and key of a service in a home of its own."""
    with tempfile.TemporaryDirectory(prefix="memgen-bench-") as home:
        own = load_settings(
            service_env=False,
            home=Path(home),
            model_cache=settings.models_dir,
            base_model=settings.base_model,
            base_dtype=settings.base_dtype,
            torch_threads=settings.torch_threads,
            api_port=0,
        )
        result = up(own, command=SUPERVISOR)
        try:
            stored = load_settings(home=Path(home))
            if stored.api_key is None:
                raise InvalidRun(f"{result.service_env} holds no key")
            yield result.api_url, stored.api_key.get_secret_value()
        finally:
            down(own)


def _overhead(client: httpx.Client, number: int) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    reply = client.post(_CHAT, json=_body(f"Say something about the number {number}.", 8))
    seconds = time.perf_counter() - started
    reply.raise_for_status()
    return 1000 * (seconds - float(reply.json()["memgen"]["seconds"]))


async def _flood(url: str, key: str, at_once: int) -> Counter[str]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, headers=_bearer(key), timeout=600, limits=limits) as client:

        async def ask(number: int) -> str:
            try:
                reply = await client.post(_CHAT, json=_body(f"Count from {number}.", 16))
            except httpx.HTTPError as error:
                return type(error).__name__
            if reply.status_code == 429 and "retry-after" not in reply.headers:
                return "429 without Retry-After"
            return str(reply.status_code)

        return Counter(await asyncio.gather(*(ask(number) for number in range(at_once))))


def _body(text: str, tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "base", "messages": messages, "max_tokens": tokens, "temperature": 0}


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
