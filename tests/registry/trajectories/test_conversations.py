from typing import Any

import pytest

from registry.errors import InvalidJson, InvalidTrajectory
from registry.json_text import MAX_DEPTH, canonical_json, parse_json
from registry.trajectories.conversations import check_conversation, check_prompt, last_supervised
from registry.trajectories.draft import Draft
from registry.trajectories.formats.chat import read
from tests.trajectory_samples import BROKEN, LOOKUP, call, changed, chat, line, read_line, tool_chat


@pytest.mark.parametrize(("data", "code"), [pytest.param(data, code, id=name) for name, data, code in BROKEN])
def test_each_kind_of_broken_line_has_its_code(data: bytes, code: str) -> None:
    _, refusal = read_line(1, data)
    assert isinstance(refusal, InvalidTrajectory)
    assert refusal.code == code
    # A reason goes into a JSON report: it must be short and encodable.
    assert str(refusal).encode("utf-8")
    assert len(str(refusal)) < 1000


GOOD: dict[str, dict[str, Any]] = {
    "plain": chat(),
    "tools": tool_chat(),
    "full envelope": chat(
        task="t", trajectory_id="a", session_id="s", reward=1, reward_source="user", success=False,
        adapter_version="bot@7", metadata={"big": 10**300, "x": [None, 1.5]}, parallel_tool_calls=False,
    ),
    "nulls for absent": chat(task=None, trajectory_id=None, reward=None, success=None, metadata=None, tools=None),
    "no tools": chat(tools=[]),
    "calls undeclared without tools": changed(tool_chat(), "tools", to=...),
    "ends with the user": {"messages": [*chat()["messages"], {"role": "user", "content": "Thanks"}]},
    "first of two turns is context": {
        "messages": [*changed(chat(), "messages", 1, "weight", to=0)["messages"], *chat()["messages"]]
    },
    "developer role": {"messages": [{"role": "developer", "content": "Be kind"}, *chat()["messages"]]},
    "call left open": {"messages": [*chat()["messages"][:1], {"role": "assistant", "tool_calls": [call("c")]}]},
    "id used again after its answer": {
        "messages": [
            *chat()["messages"][:1],
            *[
                message
                for _ in range(2)
                for message in (
                    {"role": "assistant", "content": "", "tool_calls": [call("call_0")]},
                    {"role": "tool", "tool_call_id": "call_0", "content": "ok"},
                )
            ],
        ]
    },
    "text that looks like an escape": chat(answer="\\u0000 and \\ud800"),
    "emoji": chat(answer="\U0001f600"),
    "unknown message fields": changed(chat(), "messages", 1, "refusal", to=None),
    "function without parameters": changed(tool_chat(), "tools", 0, "function", "parameters", to=...),
}  # fmt: skip


@pytest.mark.parametrize("item", [pytest.param(item, id=name) for name, item in GOOD.items()])
def test_good_conversations_pass(item: dict[str, Any]) -> None:
    _, draft = read_line(1, line(item))
    assert isinstance(draft, Draft)
    assert draft.messages == item["messages"]
    assert draft.metadata == (item.get("metadata") or {})


def test_the_message_names_the_place() -> None:
    broken = changed(tool_chat(), "messages", 2, "tool_calls", 1, "function", "arguments", to="{")
    with pytest.raises(InvalidTrajectory, match=r"^messages\[2\]\.tool_calls\[1\]\.function\.arguments: not JSON"):
        read(broken)
    with pytest.raises(InvalidTrajectory, match=r"^messages\[1\]\.content: 'a\\x00b' holds the NUL"):
        read(chat(answer="a\0b"))
    with pytest.raises(InvalidTrajectory, match=r"^tools\[1\]\.function\.name: 'lookup' is declared twice"):
        check_conversation(chat()["messages"], [LOOKUP, LOOKUP])


def test_the_last_supervised_turn_is_the_last_of_non_zero_weight() -> None:
    messages = [*chat()["messages"], *changed(chat(), "messages", 1, "weight", to=0)["messages"]]
    assert last_supervised(messages) == 1


def test_a_prompt_needs_nothing_to_learn_but_texts_that_can_be_read() -> None:
    check_prompt(chat()["messages"][:1], None)
    check_prompt(chat()["messages"][1:], [LOOKUP])
    for broken, code in (
        ([], "messages_empty"),
        ([{"role": "user", "content": "\ud800"}], "lone_surrogate"),
        ([{"role": "user"}], "content_missing"),
    ):
        with pytest.raises(InvalidTrajectory) as caught:
            check_prompt(broken, None)
        assert caught.value.code == code


def _answered(**answer: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "hi"}, {"role": "assistant", **answer}, {"role": "user", "content": "and?"}]


def _called(**function: Any) -> list[dict[str, Any]]:
    calls = [{"id": "c1", "type": "function", "function": {"name": "lookup", "arguments": "{}", **function}}]
    return _answered(content=None, tool_calls=calls)


CONTEXT: dict[str, list[dict[str, Any]]] = {
    "empty answer": _answered(content=""),
    "null answer": _answered(content=None),
    "no answer": _answered(),
    "no parts": _answered(content=[]),
    "as OpenAI's client dumps it": _answered(
        content="x",
        refusal=None,
        audio=None,
        annotations=[],
        function_call=None,
        tool_calls=None,
        name=None,
        weight=None,
    ),
    "refusal": _answered(content=None, refusal="No."),
    "refusal as part": _answered(content=[{"type": "refusal", "refusal": "No."}]),
    "thoughts": _answered(content=[{"type": "thinking", "thinking": [{}]}, {"type": "text", "text": "x"}]),
    "reasoning": _answered(content="x", reasoning_content="y"),
    "undeclared call": _called(name="other"),
    "long name": _called(name="x" * 1000),
    "arguments empty": _called(arguments=""),
    "arguments null": _called(arguments=None),
    "arguments an object": _called(arguments={"b": 1}),
    "arguments cut": _called(arguments='{"a": '),
    "arguments a list": _called(arguments="[]"),
    "call without type and id": _answered(tool_calls=[{"function": {"name": "lookup"}}]),
    "custom call": _answered(tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "x", "input": "y"}}]),
    "the same id twice": _answered(tool_calls=[call("c"), call("c")]),
    "function_call": [
        *_answered(content=None, function_call={"name": "lookup", "arguments": "{}"})[:2],
        {"role": "function", "name": "lookup", "content": None},
    ],
    "results in any order, twice, of no call": [
        *_answered(tool_calls=[call("a"), call("b")])[:2],
        *({"role": "tool", "tool_call_id": name, "content": "x"} for name in ("b", "a", "a", "nobody")),
        {"role": "tool", "content": None},
    ],
    "assistant first": _answered(content="x")[1:],
    "only an assistant": _answered(content="x")[1:2],
    "tool first": [{"role": "tool", "tool_call_id": "c", "content": "x"}],
    "system in the middle": [*_answered(content="x"), {"role": "system", "content": "y"}],
    "developer last": [*_answered(content="x"), {"role": "developer", "content": "y"}],
    "weights of all": [{**message, "weight": 1} for message in _answered(content="x")],
    "names": [{**message, "name": "Ann"} for message in _answered(content="x")],
    "NUL": _answered(content="a\0b"),
}


@pytest.mark.parametrize("messages", [pytest.param(value, id=name) for name, value in CONTEXT.items()])
def test_history_is_context(messages: list[dict[str, Any]]) -> None:
    check_prompt(messages, [LOOKUP])


@pytest.mark.parametrize("name", ["undeclared call", "arguments empty", "function_call", "null answer", "custom call"])
def test_history_of_weight_0_is_context_in_training_too(name: str) -> None:
    past = [{**message, "weight": 0} if message["role"] == "assistant" else message for message in CONTEXT[name]]
    check_conversation([*past, *chat()["messages"]], [LOOKUP])
    with pytest.raises(InvalidTrajectory):
        check_conversation([*CONTEXT[name], *chat()["messages"]], [LOOKUP])


def test_an_answer_to_learn_may_follow_one_of_weight_0() -> None:
    check_conversation([{"role": "assistant", "content": "Hello!", "weight": 0}, *chat()["messages"]], None)


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": "x", "tool_calls": [call("c")]}], "messages[0].tool_calls"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role"),
        (_answered(content=3), "messages[1].content"),
        (_answered(tool_calls={"a": 1}), "messages[1].tool_calls"),
        (_answered(tool_calls=[3]), "messages[1].tool_calls[0]"),
        (_answered(tool_calls=[{"type": "mcp"}]), "messages[1].tool_calls[0]"),
        (_answered(tool_calls=[{"function": None}]), "messages[1].tool_calls[0].function.name"),
        (_answered(tool_calls=[{"function": {"name": ""}}]), "messages[1].tool_calls[0].function.name"),
        (_answered(function_call="auto"), "messages[1].function_call.name"),
    ],
    ids=str,
)
def test_what_no_model_can_be_shown_is_refused_at_its_place(messages: list[dict[str, Any]], place: str) -> None:
    with pytest.raises(InvalidTrajectory) as error:
        check_prompt(messages, None)
    assert str(error.value).startswith(f"{place}: ")


def test_depth_is_counted_exactly() -> None:
    assert canonical_json(parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH))
    with pytest.raises(InvalidJson, match="nested more than"):
        canonical_json(parse_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)))
    assert canonical_json([[]] * 1000)
