"""One form of messages, whatever providers write."""

from typing import Any

import pytest

from memgen.text.answers import message_calls, message_text
from memgen.text.history import unified_messages


def function(name: str, arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def test_older_and_custom_calls_have_todays_form() -> None:
    sent: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "function_call": function("f", '{"x": 1}'), "tool_calls": None},
        {"role": "function", "name": "f", "content": "1"},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "g", "input": "é"}}]},
        {"role": "tool", "tool_call_id": "c", "content": None},
        {"role": "assistant", "content": "hi", "tool_calls": [], "function_call": None},
    ]
    assert unified_messages(sent) == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call_0_0", "type": "function", "function": function("f", '{"x": 1}')}],
        },
        {"role": "tool", "name": "f", "content": "1", "tool_call_id": "call_0_0"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c", "type": "function", "function": function("g", '{"input": "é"}')}],
        },
        {"role": "tool", "tool_call_id": "c", "content": ""},
        {"role": "assistant", "content": "hi"},
    ]


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ("", {}),
        (None, {}),
        ({}, {}),
        ({"b": 1, "a": 2}, {"b": 1, "a": 2}),
        ('{"x": 1}', {"x": 1}),
        ('"{\\"x\\": 1}"', {"x": 1}),
        ('{"x": ', {"arguments": '{"x": '}),
        ([1], {"arguments": [1]}),
        ("[1]", {"arguments": "[1]"}),
    ],
)
def test_arguments_are_always_an_object(given: Any, arguments: dict[str, Any]) -> None:
    [message] = unified_messages([{"role": "assistant", "tool_calls": [{"id": 7, "function": function("f", given)}]}])
    assert message_calls(message) == [{"name": "f", "arguments": arguments}]
    assert message["tool_calls"][0]["id"] == "call_0_0"


def test_the_text_of_a_message_is_all_that_it_says() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "?"}, {"type": "refusal", "refusal": "b"}]
    assert message_text({"content": parts}) == "ab"
    assert message_text({"content": None, "refusal": "no"}) == "no"
    assert message_text({"content": "yes", "refusal": None}) == "yes"
