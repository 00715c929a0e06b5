"""What answers a judge's questions: the worker's own base with a memory or none, or an upstream over HTTP.

Our own model is held to the question's schema while it writes, so that its answer is a verdict or was cut off. An
upstream is asked in words alone; what it says is read by `registry.judging.answers`, as exactly.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from memgen.backbone.prompt_cache import TokenIds
from memgen.errors import ChatTemplateError
from memgen.generation.engine import generate_all
from memgen.generation.requests import GenerationRequest, most_new_tokens
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.text.answer_grammars import Constraint
from memgen.text.json_schemas import grammar_schema
from registry.errors import Invalid, OutboundFailed, OutboundTimedOut, Unavailable
from registry.judging.judges import JudgeSettings
from registry.judging.prompts import JudgePrompt
from registry.outbound.clients import read_bounded
from registry.upstreams import Upstream, open_upstream

Choose = Callable[[Sequence[TokenIds]], Sequence[str | None]]
"""Names of the memories that answer prompts; None is the bare base."""
Build = Callable[[int], JudgePrompt | None]
"""A prompt of at most so many characters of recordings, or None if they can't be shown in so few."""

BATCH = 8
"""Questions that are asked together: a job that dies loses at most their answers."""
_LEAST_CHARACTERS = 400
_FITTINGS = 12
_SECOND_TEMPERATURE = 0.7
"""A second try at temperature 0 would say the same again."""
_CONNECTIONS = 4
_PATIENCE = (1.0, 4.0, 15.0)
"""Seconds before an upstream that is busy or away is asked again, if it says nothing itself."""
_LONGEST_WAIT = 60.0
_MISFITS = frozenset({400, 413, 422})
"""Statuses that speak of one question; others speak of the key, the model or the upstream."""


@dataclass(frozen=True)
class Ask:
    prompt: JudgePrompt
    prompt_tokens: int
    """How many it has, or about so many where only the upstream knows."""
    second: bool = False
    """Whether the first answer could not be read."""


@dataclass(frozen=True)
class Heard:
    """What came back: a text, or why there is none."""

    text: str = ""
    refusal: str = ""
    """Why this question can't be answered, whoever asks how often."""
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class JudgeModel(Protocol):
    def fit(self, build: Build) -> tuple[JudgePrompt, int] | None:
        """The longest prompt that the model takes, with its tokens; None if there is none."""

    def ask(self, questions: Sequence[Ask], check: Callable[[], None]) -> list[Heard]:
        """Answers in the order of the questions. `check` raises when the job is to stop.

        Raises:
            Unavailable: the model is away; the job goes on later.
            Invalid: it refuses every question, and always will.
        """


class LocalJudge:
    """The process's own base, with a memory or none."""

    def __init__(self, host: AdapterHost, choose: Choose, settings: JudgeSettings) -> None:
        self._host, self._choose, self._settings = host, choose, settings

    def fit(self, build: Build) -> tuple[JudgePrompt, int] | None:
        characters = self._settings.max_characters
        for _ in range(_FITTINGS):
            prompt = build(characters)
            if prompt is None:
                return None
            tokens = self._prompt_ids(prompt)
            room = self._host.backbone.max_tokens - len(tokens)
            if room >= self._settings.max_answer_tokens:  # what a memory weaves needs room, too
                room = most_new_tokens(self._host, self._request(prompt, tokens, self._choose([tokens])[0]))
            if room >= self._settings.max_answer_tokens:
                return prompt, len(tokens)
            if characters <= _LEAST_CHARACTERS:
                return None
            shown = min(characters, prompt.characters)
            # By the tokens that a character of this prompt takes, and a little less.
            spare = (self._settings.max_answer_tokens - room) * prompt.characters / len(tokens)
            characters = max(_LEAST_CHARACTERS, min(int(shown - 1.05 * spare), characters * 9 // 10))
        return None

    def ask(self, questions: Sequence[Ask], check: Callable[[], None]) -> list[Heard]:
        ids = [self._prompt_ids(question.prompt) for question in questions]
        requests = [
            self._request(question.prompt, tokens, memory, second=question.second)
            for question, tokens, memory in zip(questions, ids, self._choose(ids), strict=True)
        ]
        answers = generate_all(self._host, requests, batch_size=BATCH, on_done=lambda _: check())
        return [Heard(each.text, "", each.prompt_tokens, len(each.token_ids)) for each in answers]

    def _prompt_ids(self, prompt: JudgePrompt) -> tuple[int, ...]:
        try:
            return self._host.backbone.profile.prompt_ids(list(prompt.messages))
        except ChatTemplateError as error:
            raise Invalid(f"the base's chat template can't write a judge's question: {error}") from error

    def _request(
        self, prompt: JudgePrompt, ids: tuple[int, ...], memory: str | None = None, *, second: bool = False
    ) -> GenerationRequest:
        temperature = self._settings.temperature or (_SECOND_TEMPERATURE if second else 0.0)
        constraint = Constraint(grammar_schema(prompt.schema, strict=True), origin="a judge's verdict")
        sampling = Sampling(
            max_new_tokens=self._settings.max_answer_tokens,
            temperature=temperature,
            # The same question gets the same answer again, but for a second try.
            seed=int(prompt.hash[:12], 16) + second if temperature else None,
            constraint=constraint,
        )
        return GenerationRequest(ids, sampling, memory)


class UpstreamJudge:
    """Another OpenAI-compatible endpoint, some questions at a time."""

    def __init__(self, upstream: Upstream, model: str, settings: JudgeSettings) -> None:
        self._upstream, self._model, self._settings = upstream, model, settings
        self._limit_field = "max_tokens"

    def fit(self, build: Build) -> tuple[JudgePrompt, int] | None:
        prompt = build(self._settings.max_characters)
        return None if prompt is None else (prompt, prompt.characters // 3 + 1)

    def ask(self, questions: Sequence[Ask], check: Callable[[], None]) -> list[Heard]:
        stop = threading.Event()
        with open_upstream(self._upstream) as client, ThreadPoolExecutor(_CONNECTIONS) as pool:
            waiting = [pool.submit(self._ask, client, question, stop) for question in questions]
            try:
                while not all(each.done() for each in waiting):
                    check()
                    time.sleep(0.05)
                return [each.result() for each in waiting]
            finally:
                stop.set()
                for each in waiting:
                    each.cancel()

    def _ask(self, client: httpx.Client, question: Ask, stop: threading.Event) -> Heard:
        why = ""
        for patience in (*_PATIENCE, None):
            limit_field = self._limit_field
            try:
                status, headers, body = self._post(client, question, limit_field)
            except (httpx.HTTPError, OutboundFailed, OutboundTimedOut) as error:
                why, wait = f"{type(error).__name__}: {error}", None
            else:
                if status == 200:
                    return _read_reply(body)
                if status == 400 and limit_field == "max_tokens" and b"max_completion_tokens" in body:
                    self._limit_field = "max_completion_tokens"
                    continue
                why, wait = f"it answered {status}: {_shown(body)}", _retry_after(headers)
                if status in _MISFITS:
                    return Heard(refusal=why)
                if status < 500 and status not in (408, 425, 429):
                    raise Invalid(f"upstream {self._upstream.name!r} takes no question of this judge: {why}")
            if patience is None or stop.wait(min(wait or patience, _LONGEST_WAIT)):
                break
        raise Unavailable(f"upstream {self._upstream.name!r} does not answer: {why}")

    def _post(self, client: httpx.Client, question: Ask, limit_field: str) -> tuple[int, httpx.Headers, bytes]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": list(question.prompt.messages),
            limit_field: self._settings.max_answer_tokens,
        }
        if self._settings.temperature is not None:
            body["temperature"] = self._settings.temperature
        with client.stream("POST", "chat/completions", json=body) as response:
            content = read_bounded(response, self._upstream.max_response_bytes, seconds=self._upstream.total_seconds)
            return response.status_code, response.headers, content


def _read_reply(body: bytes) -> Heard:
    """The text of a chat completion; a reply of another form has none, and is no verdict."""
    try:
        reply = httpx.Response(200, content=body).json()
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
    return sent if isinstance(sent, int) and not isinstance(sent, bool) and 0 <= sent < 2**31 else None


def _retry_after(headers: httpx.Headers) -> float | None:
    sent = headers.get("retry-after", "")
    return float(sent) if sent.isdecimal() and len(sent) < 6 else None


def _shown(body: bytes) -> str:
    return " ".join(body[:300].decode("utf-8", "replace").split())
