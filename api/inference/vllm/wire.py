"""vLLM's completions as this service speaks them: a body to send, chunks of a stream, refusals. Waits for nothing."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memgen.errors import ConfigError
from memgen.generation.sampling import Sampling

_ID_PREFIX = "token_id:"
_DONE = b"[DONE]"
_IDS = 1 << 24
"""What ids of tokens are below. From there on the plugin's own begin, which no answer has."""


@dataclass(frozen=True)
class Token:
    """A token of an answer, as it came."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens in its place and their log probabilities, on request; the likeliest first."""


@dataclass(frozen=True)
class AnswerChunk:
    tokens: tuple[Token, ...]
    finish_reason: str | None


class Refused(Exception):
    """The server understood the request and does not take it. Not shown: the engine says what it means."""

    def __init__(self, status: int, message: str, *, of_model: bool = False) -> None:
        """`of_model`: the artifact is at fault, and not the rest of the request."""
        super().__init__(message)
        self.status, self.of_model = status, of_model


class BrokenOff(Exception):
    """The server or the connection to it ended before the answer did. Not shown: the engine says what it means."""


def completion_body(
    model: str, prompt_ids: Sequence[int], sampling: Sampling, stop_ids: Collection[int], grammar: str | None
) -> dict[str, Any]:
    """Everything is said, because the server has defaults of its own, from the base's generation config.

    Stop strings are not sent: they are looked for in the text that is made here.

    Args:
        grammar: what the answer is held to, in llguidance's form.

    Raises:
        ConfigError: the sampling has what the server does not know.
    """
    if sampling.logprob_temperature != 1.0:
        raise ConfigError(
            f"logprob_temperature is {sampling.logprob_temperature}; the engine vllm reports log probabilities of the "
            "model itself, expected 1"
        )
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(prompt_ids),
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": 0.0,
        "repetition_penalty": sampling.repetition_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "min_tokens": sampling.min_tokens,
        "stop_token_ids": sorted(stop_ids),
        "ignore_eos": True,
        "stream": True,
        "return_token_ids": True,
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed % 2**63  # it takes 64 bits with a sign, and -1 for no seed
    if sampling.logprobs or sampling.record:
        body |= {"logprobs": sampling.top_logprobs, "return_tokens_as_token_ids": True}
    if sampling.logit_bias:
        body["logit_bias"] = {str(token_id): bias for token_id, bias in sampling.logit_bias}
    if grammar is not None:
        body["structured_outputs"] = {"grammar": grammar}
    return body


async def read_events(parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Data of server-sent events, until the one that says that it was the last.

    Lines end at a line feed: what else Unicode ends lines with may stand in a text.
    """
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line.startswith(b"data: "):
                data = line[6:].strip()
                if data == _DONE:
                    return
                yield data


def read_chunk(data: bytes) -> AnswerChunk | None:
    """What one event says of the answer; None for one that says nothing of it.

    Raises:
        Refused, BrokenOff: the server gave the answer up.
    """
    try:
        event = json.loads(data)
        if "error" in event:
            raise _given_up(event["error"])
        if not event["choices"]:
            return None
        [choice] = event["choices"]
        return AnswerChunk(tuple(_tokens(choice)), choice.get("finish_reason"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenOff(f"the vLLM server sent {data[:200]!r}, which is no chunk of a completion") from error


def read_refusal(status: int, body: bytes) -> Refused | BrokenOff:
    """What an answer with another status than 200 means."""
    try:
        found = json.loads(body)
        error = found.get("error", found)
        message, of_model = str(error["message"]), error.get("param") == "model"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        message, of_model = body[:500].decode(errors="replace"), False
    if status < 500 or status == 503:
        return Refused(status, message, of_model=of_model)
    return BrokenOff(message or f"status {status}")


def _given_up(error: Mapping[str, Any]) -> Refused | BrokenOff:
    code, message = error.get("code"), str(error.get("message"))
    return Refused(code, message) if isinstance(code, int) and 400 <= code < 500 else BrokenOff(message)


def _tokens(choice: Mapping[str, Any]) -> Sequence[Token]:
    ids = choice.get("token_ids") or ()
    if wrong := [each for each in ids if not isinstance(each, int) or not 0 <= each < _IDS]:
        raise ValueError(f"{wrong} are no token ids")
    logprobs = choice.get("logprobs")
    if logprobs is None:
        return [Token(token_id) for token_id in ids]
    tops = logprobs.get("top_logprobs") or [None] * len(ids)
    return [
        Token(token_id, logprob, _top(top or {}))
        for token_id, logprob, top in zip(ids, logprobs["token_logprobs"], tops, strict=True)
    ]


def _top(alternatives: Mapping[str, float]) -> tuple[tuple[int, float], ...]:
    found = [(int(name.removeprefix(_ID_PREFIX)), value) for name, value in alternatives.items()]
    return tuple(sorted(found, key=lambda each: (-each[1], each[0])))
