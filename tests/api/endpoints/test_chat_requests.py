"""What OpenAI's clients and agents send to `/v1/chat/completions`: neutral values, bounds, history, tools."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.endpoints.chat_models import MOST_STOP_CHARACTERS, NEUTRAL
from registry.settings import Settings
from tests.api.live_api import serve
from tests.api.watched import Watch, watch

__all__ = ["watch"]

HI: list[Any] = [{"role": "user", "content": "hi"}]
GO = {
    "type": "function",
    "function": {"name": "go", "parameters": {"type": "object", "properties": {"to": {"type": "string"}}}},
}


@pytest.fixture
def http(settings: Settings, tiny_base: Path, api_key: str) -> Iterator[httpx.Client]:
    tiny = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})
    headers = {"Authorization": f"Bearer {api_key}"}
    with serve(tiny, serve_model=True) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as made:
        yield made


def post(http: httpx.Client, **body: Any) -> httpx.Response:
    return http.post("/v1/chat/completions", json={"model": "base", "messages": HI, "max_tokens": 2, **body})


NULLS = dict.fromkeys([
    *NEUTRAL, "tools", "tool_choice", "max_completion_tokens", "temperature", "top_p", "top_k", "repetition_penalty",
    "stop", "seed", "n", "logprobs", "stream", "stream_options", "parallel_tool_calls", "metadata", "user",
    "safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "frequency_penalty",
    "presence_penalty", "logit_bias", "top_logprobs", "response_format", "min_tokens", "a field that OpenAI may add",
])  # fmt: skip
NEUTRAL_VALUES: list[dict[str, Any]] = [
    NULLS,
    *({name: value} for name, values in NEUTRAL.items() for value in values),
    {"stream_options": {}},
    {"stream_options": {"include_usage": None, "include_obfuscation": None}},
    {"stream": True, "stream_options": {"include_obfuscation": False}},
    {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
    {"tool_choice": "none", "parallel_tool_calls": False},
    *({name: value} for name in ("presence_penalty", "frequency_penalty") for value in (0, 2, -2)),
    *({"response_format": value} for value in ({"type": "text"}, {"type": "text", "json_schema": None})),
    {"metadata": {"a": None, "b": "c"}, "prompt_cache_options": {"mode": "implicit"}},
    {"top_logprobs": 0, "logit_bias": {}, "min_tokens": 0},
    {"logprobs": True, "top_logprobs": 20, "logit_bias": {"0": -100, "258": 100.0}, "min_tokens": 2},
    {"stop": [], "metadata": {}, "user": "", "safety_identifier": "x", "prompt_cache_key": "x"},
    {"temperature": 0, "top_p": 0},
    {"metadata": {f"{n}": "x" * 512 for n in range(16)}},
    {"stop": ["x" * MOST_STOP_CHARACTERS] * 4, "n": 2},
]


def test_neutral_values_are_neutral(http: httpx.Client) -> None:
    for body in NEUTRAL_VALUES:
        reply = post(http, **body)
        assert reply.status_code == 200, (body, reply.text)


REFUSED: list[tuple[str, Any]] = [
    ("audio", {"voice": "x"}),
    ("prediction", {"type": "content", "content": "x"}),
    ("web_search_options", {}),
    ("modalities", ["text", "audio"]),
    ("modalities", "text"),
    ("response_format", {"type": "json_schema"}),
    ("response_format", "text"),
    ("response_format", {"type": "json_object", "json_schema": {"name": "x"}}),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "a b"}}),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wizard"}}}),
    ("logit_bias", {"5": -101}),
    ("logit_bias", {"259": 1}),
    ("logit_bias", {"-1": 1}),
    ("logit_bias", {"word": 1}),
    ("logit_bias", {str(n): 1 for n in range(1025)}),
    ("min_tokens", 3),
    ("min_tokens", -1),
    ("service_tier", "flex"),
    ("reasoning_effort", "high"),
    ("verbosity", "low"),
    ("functions", [GO["function"]]),
    ("function_call", {"name": "go"}),
    ("presence_penalty", 2.1),
    ("frequency_penalty", -2.1),
    ("frequency_penalty", [0]),
    ("top_logprobs", 1),
    ("top_logprobs", 21),
    ("tool_choice", "required"),
    ("tool_choice", "sometimes"),
    ("tool_choice", {"type": "function", "function": {}}),
    ("tool_choice", {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}),
    ("moderation", {"model": "x"}),
    ("tool_choice", {"type": "function", "function": {"name": "go"}}),
    ("temperature", 2.1),
    ("temperature", -0.1),
    ("top_p", 1.1),
    ("n", 0),
    ("max_tokens", 0),
    ("stop", ["a"] * 5),
    ("stop", "x" * (MOST_STOP_CHARACTERS + 1)),
    ("stop", ["x" * 40_000]),
    ("stop", [None]),
    ("stop", ""),
    ("stop", ["a", ""]),
    ("stop", 5),
    ("metadata", {str(n): "x" for n in range(17)}),
    ("metadata", {"x" * 65: "x"}),
    ("metadata", {"x": "x" * 513}),
    ("metadata", {"x": 1}),
    ("messages", None),
    ("model", None),
    ("model", "bot@" + "9" * 5000),
    ("model", "a\0b"),
    ("an unknown field", 1),
]


def test_what_is_not_supported_is_refused_and_its_param_named(http: httpx.Client) -> None:
    for param, value in REFUSED:
        reply = post(http, **{param: value})
        error = reply.json()["error"]
        assert (reply.status_code, error["type"]) == (400, "invalid_request_error"), (param, value)
        assert error["param"].split(".")[0].split("[")[0] == param, (param, value, error)
        assert len(error["message"]) < 1000


def test_the_default_temperature_is_openais(http: httpx.Client) -> None:
    def texts(**options: Any) -> set[str]:
        choices = post(http, n=3, max_tokens=20, **options).json()["choices"]
        return {choice["message"]["content"] for choice in choices}

    assert len(texts()) == len(texts(temperature=None)) == len(texts(top_p=None)) == 3
    assert len(texts(temperature=0)) == len(texts(top_p=0)) == 1


HISTORIES: list[list[Any]] = [
    [{"role": "assistant", "content": ""}],
    [{"role": "assistant", "content": None, "refusal": None, "audio": None, "annotations": [], "function_call": None}],
    [
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "nowhere", "arguments": ""}},
            {"id": "b", "function": {"name": "go", "arguments": None}},
            {"function": {"name": "go", "arguments": {"to": "x"}}},
            {"id": "c", "type": "function", "function": {"name": "go", "arguments": '{"to": '}}]},
        {"role": "tool", "tool_call_id": "c", "content": "x"},
        {"role": "tool", "tool_call_id": "nobody", "content": None},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "x"}], "name": "go"},
    ],
    [
        {"role": "assistant", "content": None, "function_call": {"name": "go", "arguments": "{}"}},
        {"role": "function", "name": "go", "content": "x"},
    ],
    [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, {"role": "developer", "content": "x"}],
    [{"role": "system", "content": "x"}, {"role": "developer", "content": "y"}, {"role": "tool", "content": "z"}],
    [{"role": "assistant", "content": "x", "reasoning_content": "y", "weight": 0}],
    [{"role": "assistant", "content": "", "refusal": 7}, {"role": "user", "content": "", "refusal": [1]}],
    [{"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "text": 7}]}],
]  # fmt: skip


def test_any_providers_history_is_answered(http: httpx.Client) -> None:
    for history in HISTORIES:
        for messages in ([*HI, *history, *HI], history):
            for tools in (None, [GO]):
                reply = post(http, messages=messages, tools=tools)
                assert reply.status_code == 200, (messages, reply.text)


def test_an_image_is_refused_in_words(http: httpx.Client) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}}
    reply = post(http, messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, image]}])
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, "messages[0].content[1]")
    assert "only text is read, no images" in error["message"]


def with_parameters(parameters: Any) -> list[Any]:
    return [{"type": "function", "function": {"name": "go", "parameters": parameters, "strict": None}}]


def test_tools_as_data_sets_and_pydantic_write_them(http: httpx.Client) -> None:
    bomb = {f"D{n}": {"properties": {p: {"$ref": f"#/$defs/D{n + 1}"} for p in "abcdefgh"}} for n in range(9)}
    for parameters in (
        None,
        {"$defs": {"A": {"type": "string"}}, "properties": {"a": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}}},
        {"type": "object", "properties": {"a": {"type": "string"}, "b": None}, "required": ["a"]},
        {"city": {"type": "str", "description": "x", "default": ""}},
        {"properties": {"me": {"$ref": "#"}}},
    ):
        assert post(http, tools=with_parameters(parameters)).status_code == 200, parameters
    reply = post(http, tools=with_parameters({"$defs": bomb, "properties": {"a": {"$ref": "#/$defs/D0"}}}))
    assert reply.json()["error"]["code"] == "context_length_exceeded"
    reply = post(http, tools=with_parameters({"type": "object", "required": True}))
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "tools[0].function.parameters.required")


@pytest.mark.parametrize("stream", [True, False])
def test_a_full_context_has_openais_code(http: httpx.Client, watch: Watch, stream: bool) -> None:
    for length in (1020, 2000, 2_000_000):
        reply = post(http, messages=[{"role": "user", "content": "x" * length}], stream=stream)
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (400, "context_length_exceeded")
        assert "1024" in error["message"]
    assert watch.steps == 0
