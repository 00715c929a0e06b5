from typing import Any

import pytest

from registry.errors import InvalidJson, InvalidTrajectory
from registry.json_text import MAX_DEPTH, canonical_json, parse_json
from registry.trajectories.conversations import check_conversation, check_prompt, last_supervised
from registry.trajectories.formats.formats import parse_trajectory, read_trajectory
from tests.trajectory_samples import BROKEN, LOOKUP, call, changed, chat, line, tool_chat


@pytest.mark.parametrize(("data", "code"), [pytest.param(data, code, id=name) for name, data, code in BROKEN])
def test_each_kind_of_broken_line_has_its_code(data: bytes, code: str) -> None:
    with pytest.raises(InvalidTrajectory) as caught:
        parse_trajectory(data)
    assert caught.value.code == code
    # A reason goes into a JSON report: it must be short and encodable.
    assert str(caught.value).encode("utf-8")
    assert len(str(caught.value)) < 1000


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
    draft = parse_trajectory(line(item))
    assert draft.messages == item["messages"]
    assert draft.metadata == (item.get("metadata") or {})


def test_the_message_names_the_place() -> None:
    broken = changed(tool_chat(), "messages", 2, "tool_calls", 1, "function", "arguments", to="{")
    with pytest.raises(InvalidTrajectory, match=r"^messages\[2\]\.tool_calls\[1\]\.function\.arguments: not JSON"):
        read_trajectory(broken)
    with pytest.raises(InvalidTrajectory, match=r"^messages\[1\]\.content: 'a\\x00b' holds the NUL"):
        read_trajectory(chat(answer="a\0b"))
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


def test_depth_is_counted_exactly() -> None:
    assert canonical_json(parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH))
    with pytest.raises(InvalidJson, match="nested more than"):
        canonical_json(parse_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)))
    assert canonical_json([[]] * 1000)
