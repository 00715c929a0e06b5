"""vLLM's completions read: events, chunks, refusals. No server under it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.inference.vllm.wire import (
    AnswerChunk,
    BrokenOff,
    Refused,
    Token,
    completion_body,
    read_chunk,
    read_events,
    read_refusal,
)
from memgen.errors import ConfigError
from memgen.generation.sampling import Sampling


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_events_are_read_however_they_are_cut(size: int) -> None:
    texts = ['{"a": "x\u2028y\x85z"}', "{}", '{"b": "é"}']
    stream = ": a comment\n\n" + "".join(f"data: {text}\r\n\n" for text in texts) + "data: [DONE]\n\ndata: {}\n\n"
    data = stream.encode()

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]

    async def read() -> list[str]:
        return [event.decode() async for event in read_events(parts())]

    assert asyncio.run(read()) == texts


def _event(**choice: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "text": "", "finish_reason": None, **choice}]}).encode()


def test_chunks_hold_tokens_with_what_is_known_of_them() -> None:
    assert read_chunk(_event(token_ids=[5, 6])) == AnswerChunk((Token(5), Token(6)), None)
    logprobs = {
        "token_logprobs": [-1.5],
        "top_logprobs": [{"token_id:5": -1.5, "token_id:9": -0.5, "token_id:7": -0.5}],
    }
    [token] = (
        read_chunk(_event(token_ids=[5], logprobs=logprobs, finish_reason="stop")) or AnswerChunk((), None)
    ).tokens
    assert token == Token(5, -1.5, ((7, -0.5), (9, -0.5), (5, -1.5)))
    assert read_chunk(b'{"choices": [], "usage": {}}') is None


@pytest.mark.parametrize("data", [b"no JSON", b"[]", b"{}", b'{"choices": [{}, {}]}', b'{"choices": 3}', b"null"])
def test_what_is_no_chunk_is_a_broken_answer(data: bytes) -> None:
    with pytest.raises(BrokenOff, match="no chunk of a completion"):
        read_chunk(data)


def test_errors_within_a_stream_say_whose_fault_they_are() -> None:
    with pytest.raises(Refused, match="too long"):
        read_chunk(b'{"error": {"message": "too long", "code": 400}}')
    with pytest.raises(BrokenOff, match="dead"):
        read_chunk(b'{"error": {"message": "dead", "code": 500}}')


def test_refusals_are_read() -> None:
    body = b'{"error": {"message": "rank", "type": "BadRequestError", "param": "model", "code": 400}}'
    refused = read_refusal(400, body)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.of_model, str(refused)) == (400, True, "rank")
    assert isinstance(read_refusal(503, b"not JSON"), Refused)
    assert isinstance(read_refusal(500, b""), BrokenOff)
    assert str(read_refusal(502, b"")) == "status 502"


def test_every_default_is_said() -> None:
    body = completion_body("m", [1, 2], Sampling(7), {9, 3}, None)
    said = {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty"}
    assert said <= body.keys()
    assert (body["stop_token_ids"], body["ignore_eos"], body["max_tokens"]) == ([3, 9], True, 7)
    assert not {"seed", "logprobs", "structured_outputs", "logit_bias", "stop"} & body.keys()
    assert completion_body("m", [1], Sampling(seed=-1), (), None)["seed"] == 2**63 - 1
    with pytest.raises(ConfigError, match="logprob_temperature"):
        completion_body("m", [1], Sampling(logprobs=True, logprob_temperature=2.0), (), None)
