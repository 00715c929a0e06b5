"""Whatever is sent to the chat, and whatever a model says: no 5xx, JSON in UTF-8, answers that may come back."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.settings import Settings
from tests.api.live_api import serve
from tests.api.watched import Watch, watch

__all__ = ["watch"]

bounded = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "\0", "\u2028", "<|im_end|>", "<tool_call>", "{{ x }}", "\U0001f389"]
)
NUMBER = st.integers() | st.floats() | st.sampled_from([10**400, 1e308, -0.0, 2**63, True, False])
SCALAR = st.none() | st.booleans() | NUMBER | TEXT | st.sampled_from(["\ud83d", "x" * 3000])
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)


def mostly(good: st.SearchStrategy[Any], other: st.SearchStrategy[Any] = VALUE) -> st.SearchStrategy[Any]:
    """As expected, but for one in twenty."""
    return st.integers(0, 19).flatmap(lambda drawn: other if drawn == 13 else good)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of the fields, most of them as expected."""
    return st.fixed_dictionaries({}, optional={name: mostly(each) for name, each in fields.items()})


NAME = st.sampled_from(["go", "nowhere", "x", "\u2028", "y" * 256])
ARGUMENTS = st.sampled_from(["{}", "", '{"x": 1}', '{"x"', "null"]) | VALUE
FUNCTION = mostly(st.fixed_dictionaries({"name": NAME}, optional={"arguments": ARGUMENTS}))
CALL = st.fixed_dictionaries({"function": FUNCTION}, optional={"id": NAME, "type": st.just("function")})
PART = mostly(st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}))
MESSAGE = mostly(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])},
        optional={
            "content": TEXT | st.lists(PART, max_size=3),
            "tool_calls": mostly(st.none(), st.lists(CALL, max_size=3)),
            "tool_call_id": mostly(NAME),
            "function_call": mostly(st.none(), FUNCTION),
            "refusal": mostly(st.none() | TEXT),
            "name": mostly(NAME),
            "weight": mostly(st.sampled_from([0, 1, None])),
        },
    )
)
SCHEMA = st.recursive(
    st.sampled_from([{}, {"type": "string"}, {"$ref": "#/$defs/A"}, {"$ref": "#"}, {"enum": [1, "a"]}, True]),
    lambda inner: objects(
        type=st.sampled_from(["object", "array", ["string", "null"], "str"]),
        properties=st.dictionaries(NAME, mostly(inner, st.none()), max_size=3),
        required=st.lists(NAME, max_size=2),
        items=inner,
        anyOf=st.lists(inner, max_size=3),
        allOf=st.lists(inner, max_size=2),
        additionalProperties=inner,
        **{"$defs": st.dictionaries(st.sampled_from("AB"), inner, max_size=2)},
    ),
    max_leaves=8,
)
DECLARED = st.fixed_dictionaries(
    {"name": NAME}, optional={"description": TEXT | st.none(), "parameters": SCHEMA | st.none()}
)
TOOL = mostly(st.fixed_dictionaries({"type": st.just("function"), "function": mostly(DECLARED)}))
OPTIONS = objects(
    temperature=st.sampled_from([0, 1, 2, None]),
    top_p=st.sampled_from([0, 0.5, 1, None]),
    top_k=st.integers(0, 5),
    repetition_penalty=st.sampled_from([0.5, 1, 10]),
    n=st.integers(1, 3),
    stop=st.none() | TEXT | st.lists(TEXT, max_size=5),
    seed=st.integers(-(2**63), 2**63 - 1),
    logprobs=st.booleans(),
    stream=st.booleans(),
    stream_options=objects(include_usage=st.booleans()),
    tool_choice=st.sampled_from(["auto", "none", "required", {"type": "function", "function": {"name": "go"}}]),
    tools=st.just([{"type": "function", "function": {"name": "go", "parameters": {"properties": {"x": {}}}}}]),
    parallel_tool_calls=st.booleans(),
    min_tokens=st.integers(0, 3),
    top_logprobs=st.integers(0, 20),
    frequency_penalty=st.floats(-2, 2),
    presence_penalty=st.floats(-2, 2),
    metadata=st.dictionaries(TEXT, TEXT, max_size=3),
    user=TEXT,
    response_format=st.sampled_from([None, {"type": "text"}, {"type": "json_object"}])
    | SCHEMA.map(lambda given: {"type": "json_schema", "json_schema": {"name": "x", "schema": given}}),
    logit_bias=st.dictionaries(st.integers(0, 258).map(str), st.floats(-100, 100), max_size=3),
    store=st.just(False),
)

Post = Callable[[dict[str, Any]], httpx.Response]


@pytest.fixture
def post(settings: Settings, tiny_base: Path, api_key: str) -> Iterator[Post]:
    tiny = settings.model_copy(update={"base_model": str(tiny_base), "torch_threads": 1})
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    with serve(tiny, serve_model=True) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        yield lambda body: client.post("/v1/chat/completions", content=json.dumps(body).encode())


def read(reply: httpx.Response) -> list[Any]:
    """The JSON values of a reply, which is strict JSON or a stream of it."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = reply.content.decode("utf-8")
    if not reply.headers["content-type"].startswith("text/event-stream"):
        values = [json.loads(text, parse_constant=refuse)]
    else:
        events = [event for event in text.split("\n\n") if not event.startswith(":")]
        assert events[-2:] == ["data: [DONE]", ""], text[-500:]
        values = [json.loads(event.removeprefix("data: "), parse_constant=refuse) for event in events[:-2]]
    json.dumps(values, ensure_ascii=False).encode("utf-8")
    return values


def check(reply: httpx.Response) -> None:
    assert reply.status_code < 500, reply.text
    values = read(reply)
    if reply.status_code != 200:
        error = values[0]["error"]
        assert reply.status_code in (400, 403, 404), reply.text
        assert isinstance(error["message"], str)
        assert isinstance(error["code"], str)
        assert len(reply.content) < 8000


def test_any_messages_and_tools(post: Post) -> None:
    answered = 0

    @bounded
    @given(messages=mostly(st.lists(MESSAGE, min_size=1, max_size=4)), tools=st.none() | st.lists(TOOL, max_size=2))
    def sends(messages: Any, tools: Any) -> None:
        nonlocal answered
        reply = post({"model": "base", "messages": messages, "tools": tools, "max_tokens": 1})
        check(reply)
        answered += reply.status_code == 200

    sends()
    assert answered > 20


def test_any_options(post: Post) -> None:
    answered = 0

    @bounded
    @given(options=OPTIONS, model=mostly(st.just("base"), NAME | TEXT.map("bot@{}".format) | VALUE))
    def sends(options: dict[str, Any], model: Any) -> None:
        nonlocal answered
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, **options}
        reply = post(body)
        check(reply)
        answered += reply.status_code == 200

    sends()
    assert answered > 20


SAID = st.lists(
    st.sampled_from(
        ["<tool_call>", "</tool_call>", '{"name": "go", "arguments": ', "{", "}", '"', ":", "[", "<think>", "</think>",
         '{"x": 1}', '"\\ud83d"', '"{\\"x\\": 1}"', "null", "NaN", "1e999", "\\", "\0", "\u2028", "\n", " ", "Hello",
         '<tool_call>{"name": "go", "arguments": {"x": "y"}}</tool_call>']
    ) | st.text(max_size=3),
    max_size=12,
).map("".join)  # fmt: skip
TOOLS: list[Any] = [{"type": "function", "function": {"name": "go"}}]


def test_any_answer_is_json_may_come_back_and_is_streamed_alike(post: Post, watch: Watch) -> None:
    @bounded
    @given(
        said=SAID,
        tools=st.sampled_from([None, TOOLS]),
        most=st.integers(1, 200),
        stop=st.sampled_from([None, ["o", "}"]]),
    )
    def says(said: str, tools: Any, most: int, stop: Any) -> None:
        watch.say = said
        question = [{"role": "user", "content": "hi"}]
        body = {"model": "base", "messages": question, "tools": tools, "max_tokens": most, "stop": stop}
        [completion], chunks = read(post(body)), read(post({**body, "stream": True}))
        message, ended = completion["choices"][0]["message"], completion["choices"][0]["finish_reason"]
        for call in message.get("tool_calls") or []:
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
            assert call["function"]["name"]
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        for key in ("content", "reasoning_content"):
            assert "".join(delta.get(key) or "" for delta in deltas) == (message.get(key) or "")
        calls: dict[int, dict[str, str]] = {}
        for part in (call for delta in deltas for call in delta.get("tool_calls") or []):
            made = calls.setdefault(part["index"], {"arguments": ""})
            made |= {key: text for key, text in part["function"].items() if key != "arguments"}
            made["arguments"] += part["function"]["arguments"]
        assert list(calls.values()) == [call["function"] for call in message.get("tool_calls") or []]
        assert chunks[-1]["choices"][0]["finish_reason"] == ended
        again = post({**body, "messages": [*question, message, *question], "max_tokens": 1})
        assert again.status_code == 200, (message, again.text)

    says()
