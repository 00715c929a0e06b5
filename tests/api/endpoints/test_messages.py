"""`/v1/messages` with the stock `anthropic` client."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from registry.settings import Settings
from tests.api.live_api import serve
from tests.api.watched import Watch, watch

__all__ = ["watch"]

HI: list[Any] = [{"role": "user", "content": "hi"}]
GO: dict[str, Any] = {
    "name": "go",
    "description": "Go somewhere.",
    "input_schema": {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]},
}
CALL = '<tool_call>{"name": "go", "arguments": {"to": "market"}}</tool_call>'


@pytest.fixture
def url(settings: Settings, tiny_base: Path) -> Iterator[str]:
    tiny = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1, "max_chat_bytes": 20_000})
    with serve(tiny, serve_model=True) as url:
        yield url


@pytest.fixture
def client(url: str, api_key: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key=api_key, max_retries=0) as made:
        yield made


@pytest.fixture
def http(url: str, api_key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=60) as made:
        yield made


def create(client: anthropic.Anthropic, **options: Any) -> Any:
    """Greedy; this client has no parameter for it any more."""
    extra = {"temperature": 0, **options.pop("extra_body", {})}
    return client.messages.create(**{"model": "base", "max_tokens": 200, "messages": HI, **options}, extra_body=extra)


def test_a_message_is_what_a_chat_says(client: anthropic.Anthropic, http: httpx.Client) -> None:
    message = create(client, max_tokens=20, system=[{"type": "text", "text": "Be brief.", "cache_control": None}])
    body = {"messages": [{"role": "system", "content": "Be brief."}, *HI], "max_tokens": 20, "temperature": 0}
    chat = http.post("/v1/chat/completions", json={"model": "base", **body}).json()
    assert [block.text for block in message.content] == [chat["choices"][0]["message"]["content"]]
    assert (message.stop_reason, message.stop_sequence, message.model) == ("max_tokens", None, "base")
    assert message.usage.input_tokens == chat["usage"]["prompt_tokens"]
    assert message.usage.output_tokens == 20
    assert message.memgen == {**chat["memgen"], "seconds": message.memgen["seconds"]}
    counted = client.messages.count_tokens(model="base", messages=HI, system="Be brief.")
    assert counted.input_tokens == message.usage.input_tokens


def test_the_events_of_a_text(client: anthropic.Anthropic, watch: Watch) -> None:
    watch.say = "<think>a bit</think>Hello there."
    with create(client, stream=True) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    folded = [kind for place, kind in enumerate(kinds) if kinds[place - 1 : place] != [kind]]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert folded == ["message_start", *block, *block, "message_delta", "message_stop"]
    assert kinds.count("content_block_delta") > 5
    with client.messages.stream(model="base", max_tokens=200, messages=HI) as managed:
        text = "".join(managed.text_stream)
        final = managed.get_final_message()
    assert text == "Hello there."
    assert [block.type for block in final.content] == ["thinking", "text"]
    whole = create(client)
    told, said = ([(block.type, getattr(block, "text", None)) for block in each.content] for each in (final, whole))
    assert told == said
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert final.usage.input_tokens == whole.usage.input_tokens
    assert whole.stop_reason == "end_turn"


def test_raw_events_have_names_and_a_ping(http: httpx.Client, watch: Watch) -> None:
    watch.say = "Hi."
    reply = http.post("/v1/messages", json={"model": "base", "max_tokens": 9, "messages": HI, "stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    names = [line.removeprefix("event: ") for line in reply.text.split("\n") if line.startswith("event: ")]
    assert names[:2] == ["message_start", "ping"]
    assert names[-2:] == ["message_delta", "message_stop"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_used_and_answered(client: anthropic.Anthropic, watch: Watch, stream: bool) -> None:
    watch.say = f"On my way. {CALL}"
    go: Any = [{"role": "user", "content": "Go to the market."}]
    if stream:
        with client.messages.stream(model="base", max_tokens=200, messages=go, tools=[GO]) as managed:
            message: Any = managed.get_final_message()
    else:
        message = create(client, messages=go, tools=[GO])
    text, use = message.content
    assert (text.text, use.type, use.name, use.input) == ("On my way.", "tool_use", "go", {"to": "market"})
    assert message.stop_reason == "tool_use"
    watch.say = "You are there."
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "there"}]}
    history = [*go, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    answered = create(client, messages=history, tools=[GO], stop_sequences=["are", "You", "ar"])
    assert (answered.content, answered.stop_reason, answered.stop_sequence) == ([], "stop_sequence", "You")
    answered = create(client, messages=history, tools=[GO])
    assert answered.content[0].text == "You are there."


def test_results_words_and_thoughts_of_history_are_the_chats(client: anthropic.Anthropic, http: httpx.Client) -> None:
    history: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "Go."}, {"type": "text", "text": "Now."}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "Well."},
                {"type": "tool_use", "id": "c", "name": "go", "input": {"to": "x"}},
                {"type": "tool_use", "id": "d", "name": "go", "input": {"to": "y"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c", "content": "there"},
                {"type": "tool_result", "tool_use_id": "d", "is_error": True},
                {"type": "text", "text": "And now?"},
            ],
        },
    ]
    calls = [
        {"id": name, "type": "function", "function": {"name": "go", "arguments": f'{{"to": "{to}"}}'}}
        for name, to in (("c", "x"), ("d", "y"))
    ]
    chat = [
        {"role": "user", "content": "Go.\nNow."},
        {"role": "assistant", "content": "Well.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c", "content": "there"},
        {"role": "tool", "tool_call_id": "d", "content": "error"},
        {"role": "user", "content": "And now?"},
    ]
    same = http.post(
        "/v1/chat/completions", json={"model": "base", "messages": chat, "temperature": 0, "max_tokens": 8}
    ).json()
    message = create(client, messages=history, max_tokens=8)
    assert message.content[0].text == same["choices"][0]["message"]["content"]
    assert message.usage.input_tokens == same["usage"]["prompt_tokens"]


def test_what_is_said_behind_a_use_stands_behind_it(client: anthropic.Anthropic, watch: Watch) -> None:
    watch.say = f"On my way. {CALL} See you."
    with client.messages.stream(model="base", max_tokens=200, messages=HI, tools=[GO]) as stream:
        streamed = stream.get_final_message()
    whole = create(client, tools=[GO])
    blocks = [[block.model_dump(exclude={"id"}) for block in message.content] for message in (streamed, whole)]
    assert blocks[0] == blocks[1]
    before, use, behind = whole.content
    assert (before.text, use.input, behind.text) == ("On my way.", {"to": "market"}, "See you.")


def test_an_effort_that_asks_for_nothing_is_taken(client: anthropic.Anthropic) -> None:
    """`high` is what Anthropic's API does without it."""
    for effort in ("high", "medium", None):
        assert create(client, max_tokens=2, output_config={"effort": effort}).usage.output_tokens == 2


def test_feedback_names_a_message_by_its_id(client: anthropic.Anthropic, http: httpx.Client) -> None:
    raw = client.messages.with_raw_response.create(model="base", max_tokens=1, messages=HI, metadata={"user_id": "u7"})
    assert raw.headers["x-memgen-version"] == "base"
    found = http.post("/v1/feedback", json={"completion_id": raw.parse().id, "reward": 1.0})
    assert (found.status_code, found.json()["session_id"]) == (201, "u7")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "Anthropic's side"),
        ({"tools": [{"name": "go"}]}, r"tools\[0\].input_schema"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tool_choice": {"type": []}}, "tool_choice.type"),
        ({"messages": [*HI, {"role": "assistant", "content": "I"}]}, "gone on with"),
        ({"messages": [{"role": "wizard", "content": "I"}]}, r"messages\[0\].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "only text"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, "context"),
        ({"max_tokens": 2000}, "MEMGEN_MAX_NEW_TOKENS"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"temperature": 1.5}}, "temperature"),
        ({"stop_sequences": [""]}, "stop"),
        ({"container": "c"}, "container"),
        ({"thinking": {"type": "deep"}}, "thinking"),
        ({"extra_body": {"colour": 1}}, "colour"),
        ({"extra_body": {"thread": {"type": "create"}}}, "the whole one"),
        ({"extra_body": {"mcp_servers": [{"name": "x"}]}}, "mcp_servers"),
        ({"tools": [{"name": "go", "input_schema": {"properties": [1]}}]}, r"tools\[0\].input_schema.properties"),
        ({"tools": [{"name": "", "input_schema": {}}]}, r"tools\[0\].name"),
        ({"output_config": {"effort": "low"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, "output_config.format: "),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_refused(client: anthropic.Anthropic, options: dict[str, Any], words: str, stream: bool) -> None:
    with pytest.raises(anthropic.BadRequestError, match=words) as refused:
        create(client, stream=stream, **options)
    assert refused.value.type == "invalid_request_error"


def test_every_error_has_anthropics_shape_and_status(url: str, api_key: str, client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.AuthenticationError):
        create(anthropic.Anthropic(base_url=url, api_key="mg_made_up", max_retries=0))
    with pytest.raises(anthropic.NotFoundError):
        create(client, model="nobody")
    with pytest.raises(anthropic.NotFoundError):
        client.messages.count_tokens(model="nobody", messages=HI)
    with pytest.raises(anthropic.RequestTooLargeError, match="MEMGEN_MAX_CHAT_BYTES"):
        create(client, messages=[{"role": "user", "content": "x" * 30_000}])
    bearer = {"Authorization": f"Bearer {api_key}"}
    for answer, status, kind in (
        (httpx.post(f"{url}/v1/messages", json={}), 401, "authentication_error"),
        (httpx.get(f"{url}/v1/messages", headers=bearer), 405, "invalid_request_error"),
        (httpx.get(f"{url}/v1/messages/nowhere", headers=bearer), 404, "not_found_error"),
        (httpx.post(f"{url}/v1/messages", content=b"{", headers=bearer), 415, "invalid_request_error"),
        (httpx.post(f"{url}/v1/messages", json={}, headers=bearer), 400, "invalid_request_error"),
        (httpx.post(f"{url}/v1/messages", json={}, headers={"x-api-key": api_key}), 400, "invalid_request_error"),
    ):
        body = answer.json()
        assert (answer.status_code, body["type"], body["error"]["type"]) == (status, "error", kind), body
    elsewhere = httpx.get(f"{url}/v1/models", headers={"x-api-key": api_key})
    assert elsewhere.status_code == 401, "the header counts on Anthropic's paths alone"


def test_a_service_without_a_model_is_overloaded(settings: Settings, api_key: str) -> None:
    with serve(settings) as url:
        client = anthropic.Anthropic(base_url=url, api_key=api_key, max_retries=0)
        for call in (
            lambda: create(client),
            lambda: create(client, stream=True),
            lambda: client.messages.count_tokens(model="base", messages=HI),
        ):
            with pytest.raises(anthropic.APIStatusError) as refused:
                call()
            assert (refused.value.status_code, refused.value.type) == (529, "overloaded_error")
            assert int(refused.value.response.headers["retry-after"]) > 0


def test_an_error_behind_the_beginning_is_an_event(client: anthropic.Anthropic, watch: Watch) -> None:
    watch.say = "A long answer."
    watch.fail_at = watch.steps + 8
    watch.step_seconds = 0.2
    with pytest.raises(anthropic.APIStatusError) as failed, create(client, stream=True) as stream:
        list(stream)
    assert failed.value.type == "api_error"
    assert "the device" not in str(failed.value)


def test_a_tool_must_be_used_and_an_answer_is_held_to_a_schema(client: anthropic.Anthropic) -> None:
    schema = {"type": "object", "properties": {"to": {"type": "string", "enum": ["market", "sea"]}}, "required": ["to"]}
    report = {**schema, "additionalProperties": False}
    tool = {**GO, "input_schema": report, "strict": True}
    for choice in ({"type": "any"}, {"type": "tool", "name": "go"}):
        one = {**choice, "disable_parallel_tool_use": True}
        message = create(client, tools=[tool], tool_choice=one, max_tokens=120)
        uses = [block for block in message.content if block.type == "tool_use"]
        assert (len(uses), message.stop_reason) == (1, "tool_use")
        assert uses[0].input["to"] in ("market", "sea")
    message = create(client, output_config={"format": {"type": "json_schema", "schema": report}}, max_tokens=60)
    assert json.loads(message.content[0].text)["to"] in ("market", "sea")
