"""`/v1/chat/completions` of the bare base, with the stock `openai` client. Versions: tests/e2e/test_serving.py."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState

from registry.settings import Settings
from tests.api.live_api import serve
from tests.api.watched import Watch, watch

__all__ = ["watch"]

HI: list[Any] = [{"role": "user", "content": "hi"}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "go", "parameters": {"type": "object"}}}]


@pytest.fixture
def api_url(settings: Settings, tiny_base: Path) -> Iterator[str]:
    tiny = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})
    with serve(tiny, serve_model=True) as url:
        yield url


@pytest.fixture
def client(api_url: str, api_key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api_url}/v1", api_key=api_key, max_retries=0) as made:
        yield made


@pytest.fixture
def http(api_url: str, api_key: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {api_key}"}
    with httpx.Client(base_url=api_url, headers=headers, timeout=60) as made:
        yield made


def complete(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(model="base", messages=HI, **{"max_tokens": 20, "temperature": 0, **options})


def lines(http: httpx.Client, **options: Any) -> list[str]:
    """The data of each event of a stream."""
    body = {"model": "base", "messages": HI, "max_tokens": 20, "temperature": 0, "stream": True, **options}
    reply = http.post("/v1/chat/completions", json=body)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    events = reply.text.split("\n\n")
    assert events.pop() == ""
    assert all(event.startswith("data: ") for event in events)
    return [event.removeprefix("data: ") for event in events]


def test_a_stream_is_the_completion_in_pieces(client: openai.OpenAI) -> None:
    whole = complete(client)
    with complete(client, stream=True) as stream:
        chunks = list(stream)
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    text = [chunk.choices[0].delta.content for chunk in chunks]
    assert (text[0], text[-1]) == ("", None)
    assert all(text[1:-1])
    assert len(text) > 5
    assert "".join(text[:-1]) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert {(c.object, c.model, c.id, c.created, c.usage) for c in chunks} == {
        ("chat.completion.chunk", "base", chunks[0].id, chunks[0].created, None)
    }
    assert chunks[-1].memgen == {**whole.memgen, "seconds": chunks[-1].memgen["seconds"]}
    assert all("memgen" not in (chunk.model_extra or {}) for chunk in chunks[:-1])


def test_the_clients_own_accumulator_takes_the_stream(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"max_tokens": 12, "n": 2, "seed": 1, "temperature": 1, "logprobs": True}
    with client.chat.completions.stream(
        model="base", messages=HI, stream_options={"include_usage": True}, **options
    ) as stream:
        stream.until_done()
        added = stream.current_completion_snapshot
    whole = complete(client, **options)
    assert [c.message.content for c in added.choices] == [c.message.content for c in whole.choices]
    assert [c.logprobs for c in added.choices] == [c.logprobs for c in whole.choices]
    assert [c.finish_reason for c in added.choices] == [c.finish_reason for c in whole.choices]
    assert added.usage == whole.usage


def test_usage_is_a_chunk_of_its_own_when_asked_for(http: httpx.Client) -> None:
    *chunks, end = lines(http, stream_options={"include_usage": True})
    assert end == "[DONE]"
    *before, last = map(json.loads, chunks)
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 20)
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + 20
    assert [chunk["usage"] for chunk in before] == [None] * len(before)
    assert "memgen" in before[-1]
    assert all("usage" not in json.loads(chunk) for chunk in lines(http)[:-1])


def test_text_comes_while_the_answer_is_written(client: openai.OpenAI, watch: Watch) -> None:
    watch.hold(after=3)
    with client.chat.completions.with_streaming_response.create(
        model="base", messages=HI, max_tokens=20, temperature=0, stream=True
    ) as reply:
        assert reply.headers["x-memgen-version"] == "base"
        stream = iter(reply.parse())
        assert next(stream).choices[0].delta.role == "assistant"
        assert next(stream).choices[0].delta.content
        assert watch.steps <= 3
        watch.go()
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
    assert watch.steps == 20


def test_a_stop_string_never_shows_in_a_stream(client: openai.OpenAI) -> None:
    text = complete(client, max_tokens=60).choices[0].message.content
    start = next(n for n in range(5, 40) if text[n : n + 2].isascii() and text.index(text[n : n + 2]) == n)
    with complete(client, max_tokens=60, stream=True, stop=[text[start : start + 2], "never seen"]) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text[:start]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_no_stop_string_ends_an_answer_before_its_least_tokens(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = "abcabc"
    assert complete(client, stop="b").choices[0].message.content == "a"
    least: dict[str, Any] = {"stop": "b", "extra_body": {"min_tokens": 4}}
    assert complete(client, **least).choices[0].message.content == "abca"
    with complete(client, stream=True, **least) as stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "abca"


def test_with_tools_text_that_is_no_call_comes_while_it_is_written(client: openai.OpenAI) -> None:
    whole = complete(client, tools=TOOLS)
    with complete(client, tools=TOOLS, stream=True) as stream:
        chunks = list(stream)
    texts = [chunk.choices[0].delta.content for chunk in chunks]
    assert texts[0] is texts[-1] is None
    assert len(texts) > 4
    assert "".join(text or "" for text in texts) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    with complete(client, tools=TOOLS, tool_choice="none", stream=True) as stream:
        assert len(list(stream)) > 5


def test_an_answer_of_nothing_is_an_empty_text_in_a_stream_too(client: openai.OpenAI, watch: Watch) -> None:
    watch.say = ""
    state: ChatCompletionStreamState[Any] = ChatCompletionStreamState()
    with complete(client, tools=TOOLS, stream=True) as stream:
        for chunk in stream:
            state.handle_chunk(chunk)
    added, whole = state.get_final_completion(), complete(client, tools=TOOLS)
    assert added.choices[0].message.content == whole.choices[0].message.content == ""


def test_tool_calls_are_whole_in_the_stream(client: openai.OpenAI, watch: Watch) -> None:
    calls = [{"name": "go", "arguments": {"to": "Å"}}, {"name": "stop", "arguments": {}}]
    watch.say = "Wait. " + "".join(f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls)
    whole = complete(client, tools=TOOLS, max_tokens=200)
    with client.chat.completions.stream(
        model="base", messages=HI, tools=TOOLS, max_tokens=200, temperature=0
    ) as stream:
        stream.until_done()
        streamed = stream.get_final_completion()
    for choice in (whole.choices[0], streamed.choices[0]):
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Wait.")
        made = choice.message.tool_calls
        assert [{"name": c.function.name, "arguments": json.loads(c.function.arguments)} for c in made] == calls
        assert {c.type for c in made} == {"function"}
        assert len({c.id for c in made if c.id.startswith("call_")}) == 2
    with complete(client, tools=TOOLS, max_tokens=200, stream=True) as raw:
        deltas = [call for chunk in raw for call in chunk.choices[0].delta.tool_calls or []]
    assert [(delta.index, delta.function.name) for delta in deltas] == [(0, "go"), (0, None), (1, "stop"), (1, None)]


def test_each_answer_of_n_is_that_of_its_seed(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"temperature": 1, "max_tokens": 12}
    three, later = (complete(client, n=3, seed=seed, **options) for seed in (7, 8))
    texts = [choice.message.content for choice in three.choices]
    assert len(set(texts)) == 3
    assert [choice.message.content for choice in later.choices[:2]] == texts[1:]
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    one = complete(client, **options).usage
    assert three.usage.prompt_tokens == one.prompt_tokens
    assert one.completion_tokens < three.usage.completion_tokens <= 36
    assert three.usage.total_tokens == three.usage.prompt_tokens + three.usage.completion_tokens
    unseeded = complete(client, n=2, **options)
    assert unseeded.choices[0].message.content != unseeded.choices[1].message.content


def test_logprobs_of_each_token(client: openai.OpenAI) -> None:
    answer = complete(client, logprobs=True)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens == 20
    # Parts of characters and all: the bytes are the text's.
    assert bytes(b for token in tokens for b in token.bytes).decode(errors="replace") == (
        answer.choices[0].message.content
    )
    assert all(token.logprob < 0 and token.top_logprobs == [] for token in tokens)
    assert len({token.logprob for token in tokens}) > 10
    assert complete(client).choices[0].logprobs is None


def test_top_k_and_repetition_penalty(client: openai.OpenAI) -> None:
    def text(**options: Any) -> str:
        extra = {name: options.pop(name) for name in ("top_k", "repetition_penalty") if name in options}
        return str(complete(client, max_tokens=60, extra_body=extra, **options).choices[0].message.content)

    greedy = text()
    assert text(temperature=2, seed=1) != greedy
    assert text(temperature=2, seed=1, top_k=1) == greedy
    # The tiny base repeats itself, so a penalty shows.
    assert len(set(text(repetition_penalty=10))) > len(set(greedy))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"response_format": 5}, "response_format"),
    ({"logit_bias": 5}, "logit_bias"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"n": 9}, "n:"),
    ({"stream_options": {"include_usage": True}}, "stream_options is only allowed with stream"),
    ({"seed": 2**63}, "seed"),
    ({"top_k": -1}, "top_k"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"stop": [""]}, "stop"),
    ({"max_tokens": 5000, "stream": True}, "this service allows up to 1024"),
    ({"messages": [{"role": "user", "content": "x" * 2000}], "stream": True}, "more than the model's 1024"),
    ({"messages": [{"role": "nobody", "content": "x"}], "stream": True}, "messages"),
]


def test_what_is_not_served_is_refused_and_named(http: httpx.Client) -> None:
    for body, named in REFUSED:
        reply = http.post("/v1/chat/completions", json={"model": "base", "messages": HI, **body})
        assert reply.status_code == 400, body
        error = reply.json()["error"]
        assert named in error["message"]
        assert error["type"] == "invalid_request_error"
        assert error["param"].split("[")[0] in body, error


def test_an_unknown_model_is_refused_before_the_stream(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="nobody", messages=HI, stream=True)
    assert error.value.code == "model_not_found"


def test_a_failure_in_the_middle_is_an_error_event(client: openai.OpenAI, http: httpx.Client, watch: Watch) -> None:
    watch.fail_at = 5
    with complete(client, stream=True) as stream, pytest.raises(openai.APIError) as error:
        list(stream)
    assert (error.value.code, error.value.type) == ("internal_error", "server_error")
    watch.fail_at = watch.steps + 5
    *before, last = lines(http)
    assert "".join(json.loads(chunk)["choices"][0]["delta"]["content"] for chunk in before)
    assert json.loads(last) == {
        "error": {
            "message": "an unexpected error; it was logged on the server",
            "type": "server_error",
            "param": None,
            "code": "internal_error",
        }
    }
    assert complete(client).usage.completion_tokens == 20


def test_a_stream_beyond_its_time_says_so(settings: Settings, tiny_base: Path, api_key: str, watch: Watch) -> None:
    watch.step_seconds = 0.05
    short = settings.model_copy(update={"base_model": str(tiny_base), "inference_timeout_seconds": 2.0})
    with (
        serve(short, serve_model=True) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0) as client,
        complete(client, max_tokens=900, stream=True) as stream,
        pytest.raises(openai.APIError) as error,
    ):
        list(stream)
    assert error.value.code == "not_finished_in_time"


@pytest.mark.parametrize("tools", [None, TOOLS])
def test_who_leaves_a_stream_costs_no_more_tokens(client: openai.OpenAI, watch: Watch, tools: list[Any] | None) -> None:
    watch.step_seconds = 0.01
    options: dict[str, Any] = {"tools": tools} if tools else {}
    with complete(client, max_tokens=900, stream=True, **options) as stream:
        next(iter(stream))
    complete(client, max_tokens=1)
    assert 1 < watch.steps < 200


def test_who_leaves_before_the_answer_costs_no_more_tokens(http: httpx.Client, watch: Watch) -> None:
    watch.step_seconds = 0.01
    body = {"model": "base", "messages": HI, "max_tokens": 900, "temperature": 0}
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=body, timeout=2.0)  # long enough to begin on a busy machine
    http.post("/v1/chat/completions", json={**body, "max_tokens": 1})
    assert 1 < watch.steps < 400
