"""An upstream as a judge. It is asked in words alone; what it says is read by `registry.judging.answers`, as exactly as
what our own model is held to say.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from registry.errors import Invalid, OutboundFailed, Unavailable
from registry.json_text import one_line
from registry.judging.judges import JudgeSettings
from registry.judging.prompts import JudgePrompt
from registry.outbound.clients import read_bounded
from registry.upstreams import Upstream, open_upstream
from workers.judge_models import Ask, Build, Heard

_CONNECTIONS = 4
_PATIENCE = (1.0, 4.0, 15.0)
"""Seconds before an upstream that is busy or away is asked again, if it says nothing itself."""
_LONGEST_WAIT = 60.0
_LOOK_SECONDS = 0.05
_MISFITS = frozenset({400, 413, 422})
"""Statuses that speak of one question; others speak of the key, the model or the upstream."""
_FORBIDDEN = frozenset({403, 451})
"""These speak of either: of the key, or of what a firewall in front of the upstream does not like in one run."""
_MOST_TOKENS = 100_000_000
_SHOWN_BYTES = 4096
_SHOWN_CHARACTERS = 300


class _NoAnswer(Exception):
    """A question was not answered, and asking again would not help. Says why."""


class _Forbidden(_NoAnswer):
    """It was refused in words that may mean every question."""


class UpstreamJudge:
    """Another OpenAI-compatible endpoint, some questions at a time."""

    def __init__(self, upstream: Upstream, model: str, settings: JudgeSettings) -> None:
        self._upstream, self._model, self._settings = upstream, model, settings
        self._limit_field = "max_tokens"
        self._has_answered = False

    def fit(self, build: Build) -> tuple[JudgePrompt, int] | None:
        prompt = build(self._settings.max_characters)
        return None if prompt is None else (prompt, prompt.characters // 3 + 1)

    def ask(self, questions: Sequence[Ask], check: Callable[[], None]) -> list[Heard]:
        """A question that fails while others are answered is a refused one: the upstream is there, and one run's
        trouble is its own. So is one that is forbidden after others were answered."""
        heard = asyncio.run(self._ask_all(questions, check))
        failed = [each for each in heard if isinstance(each, _NoAnswer)]
        self._has_answered = self._has_answered or len(failed) < len(heard)
        if failed and len(failed) == len(heard):
            if not all(isinstance(each, _Forbidden) for each in failed):
                raise Unavailable(f"upstream {self._upstream.name!r} does not answer: {failed[0]}")
            if not self._has_answered:
                raise Invalid(f"upstream {self._upstream.name!r} takes no question of this judge: {failed[0]}")
        return [
            Heard(refusal=f"it failed at this question, not at others: {each}") if isinstance(each, _NoAnswer) else each
            for each in heard
        ]

    async def _ask_all(self, questions: Sequence[Ask], check: Callable[[], None]) -> list[Heard | _NoAnswer]:
        places = asyncio.Semaphore(_CONNECTIONS)
        async with open_upstream(self._upstream) as client:
            asking = [asyncio.ensure_future(self._ask(client, question, places)) for question in questions]
            try:
                left: set[asyncio.Future[Heard | _NoAnswer]] = set(asking)
                while left:
                    check()
                    done, left = await asyncio.wait(left, timeout=_LOOK_SECONDS)
                    for each in done:
                        each.result()  # what every question would meet is raised at once
                return [each.result() for each in asking]
            finally:
                for each in asking:
                    each.cancel()
                await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, client: httpx.AsyncClient, question: Ask, places: asyncio.Semaphore) -> Heard | _NoAnswer:
        why = ""
        for patience in (*_PATIENCE, None):
            limit_field = self._limit_field
            wait: float | None = None
            try:
                async with places:
                    status, headers, body = await self._post(client, question, limit_field)
            except TimeoutError:  # it may have cost what an answer costs: it is not sent again
                return _NoAnswer(f"no whole answer within {self._upstream.total_seconds:g} s")
            except OutboundFailed as error:  # it is answered, and would be paid for again
                return _NoAnswer(self._shown(str(error)))
            except httpx.HTTPError as error:
                why = self._shown(f"{type(error).__name__}: {error}")
            else:
                status, words = _error_of(status, body)
                if status == 200:
                    return _read_reply(self._upstream.without_key_bytes(body))
                if status == 400 and limit_field == "max_tokens" and "max_completion_tokens" in words:
                    self._limit_field = "max_completion_tokens"
                    continue
                why, wait = f"it answered {status}: {self._shown(words)}", _retry_after(headers)
                if status in _MISFITS:
                    return Heard(refusal=why)
                if status in _FORBIDDEN:
                    return _Forbidden(why)
                if status < 500 and status not in (408, 425, 429):
                    raise Invalid(f"upstream {self._upstream.name!r} takes no question of this judge: {why}")
            if patience is not None:
                await asyncio.sleep(min(patience if wait is None else wait, _LONGEST_WAIT))
        return _NoAnswer(why)

    async def _post(
        self, client: httpx.AsyncClient, question: Ask, limit_field: str
    ) -> tuple[int, httpx.Headers, bytes]:
        """Raises TimeoutError: it takes longer than the upstream may, however it trickles."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": list(question.prompt.messages),
            limit_field: self._settings.max_answer_tokens,
        }
        if self._settings.temperature is not None:
            body["temperature"] = self._settings.temperature
        timeout = httpx.Timeout(None, connect=self._upstream.connect_seconds)
        async with (
            asyncio.timeout(self._upstream.total_seconds),
            client.stream("POST", "chat/completions", json=body, timeout=timeout) as response,
        ):
            content = await read_bounded(response, self._upstream.max_response_bytes)
            return response.status_code, response.headers, content

    def _shown(self, text: str) -> str:
        """What it said, without its key, which is to stand in no row."""
        return one_line(self._upstream.without_key(text), _SHOWN_CHARACTERS)


def _error_of(status: int, body: bytes) -> tuple[int, str]:
    """Status and words of an answer that is an error; also of one that comes with status 200, as proxies send it."""
    if status != 200:
        return status, body[:_SHOWN_BYTES].decode("utf-8", "replace")
    try:
        error = json.loads(body)["error"]
        words = json.dumps(error, ensure_ascii=False)
    except (ValueError, LookupError, TypeError, RecursionError):
        return status, ""
    if not error:
        return status, ""
    code = error.get("code") if isinstance(error, dict) else None
    return (code if isinstance(code, int) and 400 <= code <= 599 else 502), words


def _read_reply(body: bytes) -> Heard:
    """The text of a chat completion; a reply of another form has none, and is no verdict."""
    try:
        reply = json.loads(body)
        content = reply["choices"][0]["message"].get("content")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Heard()
    usage = reply.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Heard(
        content if isinstance(content, str) else "",
        "",
        _count(counts.get("prompt_tokens")),
        _count(counts.get("completion_tokens")),
    )


def _count(sent: Any) -> int | None:
    """A number of tokens; None for what no question can have needed, which counts as it was reserved."""
    return sent if isinstance(sent, int) and not isinstance(sent, bool) and 0 <= sent <= _MOST_TOKENS else None


def _retry_after(headers: httpx.Headers) -> float | None:
    sent = headers.get("retry-after", "")
    return float(sent) if sent.isdecimal() and len(sent) < 6 else None
