"""Requests for an upstream's models, through the real API, with stock clients."""

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from tests.api.gateway.conftest import UPSTREAM_KEY
from tests.api.gateway.upstream_server import HELLO, Received, UpstreamServer, chunk, completion

HI: list[Any] = [{"role": "user", "content": "hi"}]


def ask(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(**{"model": "strong/gpt-5", "messages": HI, **options})


def test_a_request_is_forwarded_as_it_is(client: openai.OpenAI, upstream: UpstreamServer) -> None:
    extra = {"reasoning_effort": "high", "anything": {"a": [1, 2.5, None, "ü\u2028"]}}
    found = ask(client, temperature=0.5, store=True, metadata={"task": "t"}, extra_body=extra)
    assert found.choices[0].message.content == "Hello"
    assert found.model == "gpt-5-real"
    assert found.usage.total_tokens == 5
    [request] = upstream.seen
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert request.body == {"model": "gpt-5", "messages": HI, "temperature": 0.5, **extra}


def test_answers_have_ids_of_ours(client: openai.OpenAI) -> None:
    ids = {ask(client).id for _ in range(2)}
    assert len(ids) == 2
    assert all(each.startswith("chatcmpl-") and each != "chatcmpl-theirs" for each in ids)


def test_a_model_may_have_a_slash(client: openai.OpenAI, upstream: UpstreamServer) -> None:
    ask(client, model="strong/Qwen/Qwen3-8B")
    assert upstream.seen[0].body["model"] == "Qwen/Qwen3-8B"


def test_upstreams_models_are_listed(client: openai.OpenAI) -> None:
    listed = {model.id: model.owned_by for model in client.models.list()}
    assert listed == {"base": "memgen", "strong/gpt-5": "strong", "strong/Qwen/Qwen3-8B": "strong"}
    assert client.models.retrieve("strong/Qwen/Qwen3-8B").id == "strong/Qwen/Qwen3-8B"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("strong/gpt-4")


@pytest.mark.parametrize(
    "model", ["strong/gpt-4", "weak/gpt-5", "/", "strong/", "http://127.0.0.1/x", "../strong/gpt-5"]
)
def test_what_no_file_names_is_not_found(client: openai.OpenAI, upstream: UpstreamServer, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, model=model)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert upstream.seen == []


def test_a_stream_is_passed_through_byte_for_byte(http: httpx.Client, upstream: UpstreamServer) -> None:
    sent = (
        b": OPENROUTER PROCESSING\n\n"
        b'data:  {"id" : "theirs", "choices":[{"index":0,"delta":{"content":"\xc3\xbc\\u2028"},"x":1.50}]}'
        + b"\r\n\r\n"
        b'event: message\nid: 7\ndata: {"choices":[{"index":0,"delta":{"content":" \\"id\\":\\"theirs\\""}}],'
        b'"id":"theirs"}' + b"\n\n"
        b'data: {"id":"theirs","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"n":1e3}}' + b"\n\n"
        b"data: [DONE]\n\n"
    )

    def play(request: Received) -> None:
        request.begin()
        for place in range(0, len(sent), 7):  # cut anywhere: in a character, in a line's end
            request.send(sent[place : place + 7])
        request.end()

    upstream.play = play
    body = {"model": "strong/gpt-5", "messages": HI, "stream": True}
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["x-memgen-version"] == "strong/gpt-5"
    own = json.loads(reply.content.split(b"\r\n\r\n")[0].split(b"data:")[1])["id"].encode()
    assert own.startswith(b"chatcmpl-")
    expected = sent.replace(b'"theirs"', b'"' + own + b'"').replace(b'\\"' + own + b'\\"', b'\\"theirs\\"')
    assert reply.content == expected


def test_the_stock_clients_take_the_stream(client: openai.OpenAI, api_url: str, api_key: str) -> None:
    with ask(client, stream=True) as stream:
        chunks = list(stream)
    assert "".join(each.choices[0].delta.content or "" for each in chunks) == "Hello"
    assert len({each.id for each in chunks}) == 1

    async def with_async() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{api_url}/v1", api_key=api_key, max_retries=0) as asynchronous:
            whole = await asynchronous.chat.completions.create(model="strong/gpt-5", messages=HI)
            stream = await asynchronous.chat.completions.create(model="strong/gpt-5", messages=HI, stream=True)
            return whole, [each async for each in stream]

    whole, found = asyncio.run(with_async())
    assert whole.choices[0].message.content == "Hello"
    assert [each.choices[0].delta.content for each in found] == ["", "Hel", "lo", None]


def test_pieces_come_as_they_are_sent(client: openai.OpenAI, upstream: UpstreamServer) -> None:
    """The second is sent only once the first has been read."""
    seen: list[str] = []

    def play(request: Received) -> None:
        request.begin()
        for number, each in enumerate(HELLO):
            while len(seen) < number:
                pass
            request.event(each)
        request.send(b"data: [DONE]\n\n")
        request.end()

    upstream.play = play
    with ask(client, stream=True) as stream:
        for each in stream:
            seen.append(each.choices[0].delta.content or "")
    assert seen == ["", "Hel", "lo", ""]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses"])
def test_other_paths_refuse_by_name(http: httpx.Client, upstream: UpstreamServer, path: str) -> None:
    reply = http.post(path, json={"model": "strong/gpt-5", "prompt": "x", "input": "x"})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["code"], error["param"]) == ("not_for_upstreams", "model")
    assert "strong/gpt-5" in error["message"]
    assert upstream.seen == []


def test_messages_refuse_in_anthropics_shape(http: httpx.Client) -> None:
    reply = http.post("/v1/messages", json={"model": "strong/gpt-5", "messages": HI, "max_tokens": 5})
    assert reply.status_code == 400
    assert reply.json()["error"]["details"]["error_code"] == "not_for_upstreams"


def test_own_models_are_answered_as_ever(http: httpx.Client) -> None:
    reply = http.post("/v1/chat/completions", json={"model": "no-such", "messages": HI})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    reply = http.post("/v1/chat/completions", json={"model": "base", "messages": HI, "surprise": 1})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "unknown_parameter")
    assert http.post("/v1/chat/completions", json=["strong/gpt-5"]).status_code == 400
    assert http.post("/v1/chat/completions", json={"model": 5, "messages": HI}).status_code == 400


def test_without_a_key_nothing_is_forwarded(api_url: str, upstream: UpstreamServer) -> None:
    reply = httpx.post(f"{api_url}/v1/chat/completions", json={"model": "strong/gpt-5", "messages": HI})
    assert reply.status_code == 401
    assert upstream.seen == []


def test_stream_must_be_a_boolean(http: httpx.Client, upstream: UpstreamServer) -> None:
    reply = http.post("/v1/chat/completions", json={"model": "strong/gpt-5", "messages": HI, "stream": "yes"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "stream")
    assert upstream.seen == []


def test_a_user_is_named_in_few_words(http: httpx.Client, upstream: UpstreamServer) -> None:
    """As to own models: a longer name would fit into no index, and its runs would not be recorded."""
    refused = http.post("/v1/chat/completions", json={"model": "strong/gpt-5", "messages": HI, "user": "u" * 513})
    assert (refused.status_code, upstream.seen) == (400, [])
    assert "user: got 513 characters" in refused.text
    http.post("/v1/chat/completions", json={"model": "strong/gpt-5", "messages": HI, "user": "u" * 512})
    assert len(upstream.seen) == 1


def test_a_whole_reply_keeps_what_it_says(http: httpx.Client, upstream: UpstreamServer) -> None:
    said = completion(
        {"content": None, "annotations": [1.50], "x": "\ud83d"}, service_tier="flex", system_fingerprint="f"
    )
    upstream.play = lambda request: request.reply(said)
    reply = http.post("/v1/chat/completions", json={"model": "strong/gpt-5", "messages": HI}).json()
    recorded = {"run": None, "reason": "not_requested"}
    assert reply == {**said, "id": reply["id"], "memgen": {"version": "strong/gpt-5", "recorded": recorded}}


def test_a_whole_reply_is_json_though_the_upstream_s_is_none(http: httpx.Client, upstream: UpstreamServer) -> None:
    sent = json.dumps(completion({"content": "Hello"}, usage={"prompt_tokens": float("nan"), "score": -float("inf")}))
    upstream.play = lambda request: request.reply(sent.encode())
    reply = http.post("/v1/chat/completions", json={"model": "strong/gpt-5", "messages": HI})
    assert reply.status_code == 200
    assert json.loads(reply.text, parse_constant=pytest.fail)["usage"] == {"prompt_tokens": None, "score": None}


def test_a_chunk_without_an_id_gets_one(client: openai.OpenAI, upstream: UpstreamServer) -> None:
    def play(request: Received) -> None:
        request.begin()
        for each in HELLO:
            request.event({name: value for name, value in each.items() if name != "id"})
        request.end()  # and no [DONE]

    upstream.play = play
    with ask(client, stream=True) as stream:
        ids = {each.id for each in stream}
    [own] = ids
    assert own.startswith("chatcmpl-")


def test_several_choices_are_passed(client: openai.OpenAI, upstream: UpstreamServer) -> None:
    def play(request: Received) -> None:
        request.begin()
        for index in (1, 0):
            request.event(chunk({"role": "assistant", "content": str(index)}, index=index, finish="stop"))
        request.send(b"data: [DONE]\n\n")
        request.end()

    upstream.play = play
    with ask(client, stream=True, n=2) as stream:
        assert [each.choices[0].delta.content for each in stream] == ["1", "0"]
