"""Answers that must be JSON or calls: the stock `openai` client, a live API, and a tiny base that writes nonsense."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel

from registry.settings import Settings
from tests.api.live_api import serve

HI: list[Any] = [{"role": "user", "content": "hi, in json"}]


class Line(BaseModel):
    kind: Literal["new", "paid"]
    count: Literal[1, 2, 3]
    gift: bool


class Order(BaseModel):
    lines: tuple[Line, Line]
    note: Literal["none", "fragile"] | None


def tool(name: str, properties: dict[str, Any], **more: Any) -> Any:
    closed = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "parameters": closed, **more}}


GO = tool("go", {"to": {"enum": ["north", "south"]}, "far": {"type": "boolean"}}, strict=True)
STOP = tool("stop", {}, strict=True)


@pytest.fixture
def client(settings: Settings, tiny_base: Path, api_key: str) -> Iterator[openai.OpenAI]:
    tiny = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})
    with serve(tiny, serve_model=True) as url, openai.OpenAI(base_url=f"{url}/v1", api_key=api_key) as made:
        yield made


def post(client: openai.OpenAI, **body: Any) -> httpx.Response:
    whole = {"model": "base", "messages": HI, "max_tokens": 8, **body}
    return httpx.post(
        f"{client.base_url}chat/completions",
        json=whole,
        headers={"Authorization": f"Bearer {client.api_key}"},
        timeout=60,
    )


def test_a_parsed_answer_is_of_its_class(client: openai.OpenAI) -> None:
    """The free answer of this base is no JSON."""
    free = client.chat.completions.create(model="base", messages=HI, max_tokens=200)
    with pytest.raises(json.JSONDecodeError):
        json.loads(free.choices[0].message.content or "")
    reply = client.chat.completions.parse(
        model="base", messages=HI, max_tokens=400, n=3, temperature=1.5, response_format=Order
    )
    assert [choice.finish_reason for choice in reply.choices] == ["stop"] * 3
    for choice in reply.choices:
        assert isinstance(choice.message.parsed, Order)
        assert Order.model_validate_json(choice.message.content or "") == choice.message.parsed
    assert len({choice.message.content for choice in reply.choices}) > 1


def test_json_objects_are_objects_unless_cut(client: openai.OpenAI) -> None:
    seen = set()
    for seed in range(6):
        reply = client.chat.completions.create(
            model="base", messages=HI, max_tokens=150, seed=seed, response_format={"type": "json_object"},
            logit_bias={str(token): 100 for token in (ord("}") - 30, ord("]") - 30)},
        )  # fmt: skip
        choice = reply.choices[0]
        assert (choice.message.content or "").startswith("{")
        seen.add(choice.finish_reason)
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content or ""), dict)
    assert "stop" in seen
    cut = client.chat.completions.create(
        model="base", messages=HI, max_tokens=3, response_format={"type": "json_object"}, logit_bias={"95": -100}
    )
    assert cut.choices[0].finish_reason == "length"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "go"}}])
def test_a_required_call_is_made_and_valid(client: openai.OpenAI, choice: Any) -> None:
    for seed in range(3):
        reply = client.chat.completions.parse(
            model="base", messages=HI, max_tokens=300, tools=[GO, STOP], tool_choice=choice, seed=seed,
            parallel_tool_calls=False, temperature=1.5,
        )  # fmt: skip
        [answer] = reply.choices
        assert answer.finish_reason == "tool_calls"
        assert answer.message.content is None
        [call] = answer.message.tool_calls or []
        arguments = json.loads(call.function.arguments)
        if call.function.name == "go":
            assert set(arguments) == {"to", "far"}
            assert arguments["to"] in ("north", "south")
            assert isinstance(arguments["far"], bool)
        else:
            assert (choice, call.function.name, arguments) == ("required", "stop", {})


def test_allowed_tools_are_the_only_ones(client: openai.OpenAI) -> None:
    allowed = {"type": "function", "function": {"name": "stop"}}
    for seed in range(3):
        reply = client.chat.completions.create(
            model="base", messages=HI, max_tokens=300, tools=[GO, STOP], seed=seed, parallel_tool_calls=False,
            tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [allowed]}},
        )  # fmt: skip
        [call] = reply.choices[0].message.tool_calls or []
        assert call.function.name == "stop"  # type: ignore[union-attr]  # calls of functions only


def test_a_streamed_call_comes_name_first_and_is_the_unstreamed_one(client: openai.OpenAI) -> None:
    def ask(**more: Any) -> Any:
        return client.chat.completions.create(
            model="base", messages=HI, max_tokens=300, tools=[GO, STOP], tool_choice="required", seed=5,
            parallel_tool_calls=False, **more,
        )  # fmt: skip

    [whole] = ask().choices[0].message.tool_calls
    deltas = [choice.delta for chunk in ask(stream=True) for choice in chunk.choices]
    parts = [call for delta in deltas for call in delta.tool_calls or ()]
    assert [part.index for part in parts] == [0] * len(parts)
    assert parts[0].id
    assert (parts[0].function.name, parts[0].function.arguments) == (whole.function.name, "")
    assert "".join(part.function.arguments for part in parts) == whole.function.arguments
    assert not any(delta.content for delta in deltas)


def test_a_reply_is_taken_back_as_history(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="base", messages=HI, max_tokens=300, tools=[GO], tool_choice="required", parallel_tool_calls=False
    )
    message = reply.choices[0].message
    [call] = message.tool_calls or []
    for sent in (message, message.model_dump(), message.model_dump(exclude_none=True)):
        history: list[Any] = [*HI, sent, {"role": "tool", "tool_call_id": call.id, "content": "done"}]
        again = client.chat.completions.create(model="base", messages=history, max_tokens=4, tools=[GO])
        assert again.choices[0].finish_reason in ("length", "stop")


OPEN = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
UNSUPPORTED = {**OPEN, "additionalProperties": False, "not": {"required": ["b"]}}
HOSTILE: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "array", "minItems": 10**9}}},
    {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 999983}}},
    {"type": "object", "properties": {f"{'x' * 100}{n}": {"type": "string"} for n in range(2000)}},
    {"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=a)"}}},
    {"type": "object", "properties": {"a": {"$ref": "https://example.com/schema"}}},
    {"type": "object", "properties": {"a": {"minimum": -(10**305)}}},
]


def test_a_strict_schema_that_can_not_be_held_to_is_refused_by_name(client: openai.OpenAI) -> None:
    for schema, word in (
        (OPEN, "'additionalProperties' is required"),
        ({**OPEN, "required": [], "additionalProperties": False}, "Missing 'a'"),
        (UNSUPPORTED, '"not"'),
        ({"type": "array", "items": {"type": "string"}}, 'type: "array"'),
    ):
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
        function = {"type": "function", "function": {"name": "go", "parameters": schema, "strict": True}}
        for body, param, code in (
            ({"response_format": wanted}, "response_format", "invalid_json_schema"),
            ({"tools": [STOP, function]}, "tools[1].function.parameters", "invalid_function_parameters"),
        ):
            reply = post(client, **body)
            error = reply.json()["error"]
            assert (reply.status_code, error["type"], error["param"], error["code"]) == (
                400, "invalid_request_error", param, code,
            ), error  # fmt: skip
            assert word in error["message"]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_schemas_are_refused_where_they_are_asked_for_and_free_in_tools(
    client: openai.OpenAI, number: int
) -> None:
    schema = HOSTILE[number]
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    reply = post(client, response_format=wanted)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "response_format"), reply.text
    if number == 2:  # nor is there room for it in the prompt
        return
    function = {"type": "function", "function": {"name": "go", "parameters": schema}}
    reply = post(client, tools=[function], tool_choice="required", max_tokens=300, parallel_tool_calls=False)
    assert reply.status_code == 200 or reply.json()["error"]["code"] == "context_length_exceeded", reply.text


def test_what_a_loose_schema_says_beyond_grammars_is_passed_over(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "y"]}},
        "required": ["a"],
        "not": {"required": ["b"]},
    }
    reply = post(client, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, n=2)
    contents = [choice["message"]["content"] for choice in reply.json()["choices"]]
    assert reply.status_code == 200
    assert all(content.startswith('{"a": "') for content in contents), contents


def test_openais_rules_of_formats_and_choices(client: openai.OpenAI) -> None:
    silent = [{"role": "user", "content": "hi"}]
    for body, param, code in (
        ({"messages": silent, "response_format": {"type": "json_object"}}, "messages", "json_not_mentioned"),
        ({"tools": [GO], "tool_choice": {"type": "function", "function": {"name": "fly"}}}, "tool_choice",
         "tool_choice_unknown"),
        ({"tool_choice": "required"}, "tool_choice", "tool_choice_without_tools"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name",
         "missing_required_parameter"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
    ):  # fmt: skip
        reply = post(client, **body)
        error = reply.json()["error"]
        assert (reply.status_code, error["param"], error["code"]) == (400, param, code), error


def test_alternatives_have_texts_and_bytes(client: openai.OpenAI) -> None:
    def ask(**more: Any) -> Any:
        return client.chat.completions.create(
            model="base", messages=HI, max_tokens=5, logprobs=True, top_logprobs=4, temperature=0, **more
        )

    content = ask().choices[0].logprobs.content
    assert len(content) > 0
    for place in content:
        assert len(place.top_logprobs) == 4
        values = [each.logprob for each in place.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert place.logprob == values[0]
        assert (place.token, place.bytes) == (place.top_logprobs[0].token, place.top_logprobs[0].bytes)
    streamed = [each for chunk in ask(stream=True) for choice in chunk.choices for each in
                (choice.logprobs.content if choice.logprobs else ())]  # fmt: skip
    assert [each.model_dump() for each in streamed] == [each.model_dump() for each in content]


def test_a_bias_and_a_penalty_are_felt(client: openai.OpenAI) -> None:
    letter = "a"
    token = str(ord(letter) - 30)
    forced = post(client, temperature=0, logit_bias={token: 100}).json()["choices"][0]["message"]["content"]
    assert forced == letter * 8
    banned = post(client, temperature=0, logit_bias={token: -100}).json()["choices"][0]["message"]["content"]
    assert letter not in banned
    first, second = post(
        client, temperature=0, logit_bias={token: 100, str(ord("b") - 30): 99.5}, frequency_penalty=2, n=2
    ).json()["choices"]
    assert first["message"]["content"] == second["message"]["content"]
    assert set(first["message"]["content"]) == {"a", "b"}
