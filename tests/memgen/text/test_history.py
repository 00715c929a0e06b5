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


NO_TEXT: list[Any] = [5, True, 1.5, {"a": 1}, [None], [{"type": "text", "text": "t"}]]


@pytest.mark.parametrize("junk", NO_TEXT)
def test_what_is_no_text_is_none(junk: Any) -> None:
    """Fields beside a checked content are kept as they were sent, in stored rows too."""
    assert message_text({"content": None, "refusal": junk}) == ""
    assert message_text({"content": "hi", "refusal": junk}) == "hi"
    assert message_text({"content": [None, {"type": "refusal", "refusal": "no", "text": junk}]}) == "no"
    assert message_text({"content": [{"type": "reasoning", "text": "a thought"}, {"type": "text", "text": "a"}]}) == "a"


@pytest.mark.parametrize("junk", [*NO_TEXT, "auto", {"name": 7}])
@pytest.mark.parametrize("role", ["user", "assistant", "tool", "system"])
def test_what_is_no_call_or_name_is_left_out(role: str, junk: Any) -> None:
    names = {} if isinstance(junk, str) else {"name": junk, "tool_call_id": junk}
    said = {"role": role, "content": "hi", "function_call": junk, **names}
    assert unified_messages([said]) == [{"role": role, "content": "hi"}]


def test_only_assistants_call() -> None:
    said = {"role": "user", "content": "hi", "function_call": function("f", "{}")}
    assert unified_messages([said]) == [{"role": "user", "content": "hi"}]
