"""The vLLM servers of this service: which are there, with which base, and which one answers next. Knows no request.

Each is looked at all the time; one that is away is looked at more often, and is used again as soon as it is back.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import structlog

from api.inference.unavailable import InferenceUnavailable
from api.inference.vllm.wire import AnswerChunk, BrokenOff, read_chunk, read_events, read_refusal

log = structlog.get_logger()

_LOOK_SECONDS = 5.0
_LOOK_AWAY_SECONDS = 0.5
CONNECT_SECONDS = 5.0
_LOOK_TIMEOUT_SECONDS = 10.0
"""A server that computes on all cores answers late."""
_PREFIX_TOKENS = 256
"""How much of a prompt says which server may have read it before."""
_FAIR_LEAD = 4
"""Answers by which the server of a prompt's beginning may have more to do than another."""


@dataclass(frozen=True)
class FoundBase:
    """The base that a server has loaded, as it says."""

    model: str
    """What its bare base is called in requests."""
    name: str
    revision: str
    identity: Mapping[str, str]
    context_tokens: int


CheckBase = Callable[[FoundBase], None]
"""Raises InferenceUnavailable unless it is the base that this service answers with."""


class VllmServer:
    """One server; lives in one event loop."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self.url = url
        self._client = client
        self.found: FoundBase | None = None
        """Its base, while it is there and has the right one."""
        self.reason = "it was not looked at yet"
        """Why it can't be used, where it can't."""
        self.answers = 0
        """Answers that it makes now."""
        self._wanted = asyncio.Event()

    async def until_next_look(self) -> None:
        """Returns when it is time to look again, at once where an answer has just broken off."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS if self.found else _LOOK_AWAY_SECONDS):
                await self._wanted.wait()

    async def look(self, check_base: CheckBase) -> None:
        """Find out whether it can be used."""
        self._wanted.clear()
        try:
            (await self._client.get(f"{self.url}/health", timeout=_LOOK_TIMEOUT_SECONDS)).raise_for_status()
            found = await self._ask_base()
            check_base(found)
        except InferenceUnavailable as error:
            self._note_away(str(error))
        except httpx.HTTPStatusError as error:
            path = error.request.url.path
            self._note_away(f"{path} answers {error.response.status_code}; is it vLLM with the plugin memgen-vllm?")
        except Exception as error:  # whatever answers there: who looks must go on looking
            self._note_away(f"{type(error).__name__}: {error}")
        else:
            if self.found is None:
                log.info("a vLLM server answers", url=self.url, base=found.name)
            self.found = found

    async def complete(self, body: dict[str, Any]) -> AsyncGenerator[AnswerChunk, None]:
        """The answer in chunks. Closing the generator ends the generation in the server.

        Raises:
            Refused: the server does not take the request.
            BrokenOff: it went away before the answer was whole.
        """
        self.answers += 1
        try:
            async with self._client.stream("POST", f"{self.url}/v1/completions", json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise read_refusal(response.status_code, await response.aread())
                async with aclosing(read_events(response.aiter_bytes())) as events:
                    async for data in events:
                        if chunk := read_chunk(data):
                            yield chunk
        except (BrokenOff, httpx.RequestError) as error:
            self._note_away(f"{type(error).__name__}: {error}")
            self._wanted.set()
            raise BrokenOff(self.reason) from error
        finally:
            self.answers -= 1

    async def _ask_base(self) -> FoundBase:
        base, models = await self._get("/memgen/base"), await self._get("/v1/models")
        served = [model["id"] for model in models["data"] if model.get("parent") is None]
        if not served or not isinstance(served[0], str):
            raise ValueError("/v1/models names no base")
        return FoundBase(
            served[0],
            str(base["name"]),
            str(base["revision"]),
            dict(base["identity"]),
            int(base["max_tokens"]),
        )

    async def _get(self, path: str) -> Any:
        return (await self._client.get(f"{self.url}{path}", timeout=_LOOK_TIMEOUT_SECONDS)).raise_for_status().json()

    def _note_away(self, reason: str) -> None:
        if self.found is not None or self.reason != reason:
            log.warning("a vLLM server can't be used", url=self.url, reason=reason)
        self.found, self.reason = None, reason


def choose(servers: Sequence[VllmServer], prompt_ids: Sequence[int]) -> tuple[VllmServer, FoundBase]:
    """The server that answers: the one that prompts with this beginning go to, unless it has much more to do.

    Raises:
        InferenceUnavailable: none is there.
    """
    there = [(server, server.found) for server in servers if server.found is not None]
    if not there:
        raise InferenceUnavailable(
            "no vLLM server can be used: " + "; ".join(f"{server.url}: {server.reason}" for server in servers)
        )
    beginning = json.dumps(list(prompt_ids[:_PREFIX_TOKENS])).encode()
    fewest = min(server.answers for server, _ in there)
    fair = [each for each in there if each[0].answers <= fewest + _FAIR_LEAD]
    return max(fair, key=lambda each: hashlib.sha256(each[0].url.encode() + beginning).digest())
