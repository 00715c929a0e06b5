"""Formats `sharegpt` and `hf-tools`: rows as public data sets have them, and hostile ones."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import InvalidTrajectory
from registry.trajectories.draft import Draft
from registry.trajectories.formats import hf_tools, sharegpt
from registry.trajectories.formats.turns import parsed_text
from tests.trajectory_samples import LOOKUP, changed, drafts, read_file, tool_chat

EXPECTED = [
    {"role": "system", "content": "Help."},
    {"role": "user", "content": "Where are orders 7 and 8?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": '{"order": "7"}'}},
            {"id": "call_2", "type": "function", "function": {"name": "lookup", "arguments": '{"order": "8"}'}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "shipped"},
    {"role": "tool", "tool_call_id": "call_2", "content": "lost"},
    {"role": "assistant", "content": "7 is shipped, 8 is lost."},
]
ASKED = {"from": "human", "value": "Where are orders 7 and 8?"}
TOLD = {"from": "gpt", "value": "7 is shipped, 8 is lost."}
CALLED = {"from": "function_call", "value": '{"name": "lookup", "arguments": {"order": "7"}}'}
SEVEN, EIGHT = ({"name": "lookup", "arguments": {"order": order}} for order in ("7", "8"))

LLAMA_FACTORY = {
    "conversations": [
        ASKED,
        {"from": "function_call", "value": json.dumps([SEVEN, EIGHT])},
        {"from": "observation", "value": '["shipped", "lost"]'},
        TOLD,
    ],
    "system": "Help.",
    "tools": json.dumps([LOOKUP["function"]]),
}
TURN_BY_TURN = {
    "conversations": [
        ASKED,
        {"from": "function_call", "value": json.dumps(SEVEN)},
        {"from": "function_call", "value": json.dumps(EIGHT)},
        {"from": "observation", "value": "shipped"},
        {"from": "observation", "value": "lost"},
        TOLD,
    ],
    "system": "Help.",
    "tools": json.dumps([LOOKUP]),
}
HERMES = {
    "id": "7f",
    "conversations": [
        {"from": "system", "value": "Help."},
        ASKED,
        {
            "from": "gpt",
            "value": "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in (SEVEN, EIGHT)) + "\n",
        },
        {
            "from": "tool",
            "value": "<tool_response>\nshipped\n</tool_response>\n<tool_response>\nlost\n</tool_response>\n",
        },
        TOLD,
    ],
    "tools": json.dumps([LOOKUP]),
    "category": "Orders",
    "task": "Track orders",
}

HERMES_BY_STR = changed(
    HERMES, "conversations", 2, "value",
    to="\n".join(f"<tool_call>\n{call | {'arguments': call['arguments'] | {'zip': None}}}\n</tool_call>"
                 for call in (SEVEN, EIGHT)),
)  # fmt: skip
"""As NousResearch's own data set has them: written by Python's `str`."""
TAGS_IN_CALLS = changed(LLAMA_FACTORY, "conversations", 1, "value", to=HERMES_BY_STR["conversations"][2]["value"])
OPENAI_CALLS = changed(
    LLAMA_FACTORY, "conversations",
    to=[
        {"role": "user", "content": ASKED["value"]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": f"call_{n}", "type": "function", "function": call}
                                                              for n, call in enumerate((SEVEN, EIGHT), 1)]},
        {"role": "tool", "tool_call_id": "call_1", "content": "shipped"},
        {"role": "tool", "tool_call_id": "call_2", "content": "lost"},
        {"role": "assistant", "content": TOLD["value"]},
    ],
)  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [LLAMA_FACTORY, TURN_BY_TURN, HERMES, HERMES_BY_STR, TAGS_IN_CALLS, OPENAI_CALLS],
    ids=["LLaMA-Factory", "turn by turn", "Hermes", "Hermes by str", "tags in calls", "OpenAI's calls"],
)
def test_rows_with_tools_become_one_conversation(row: dict[str, Any]) -> None:
    draft = sharegpt.read(row)
    assert draft.messages == EXPECTED
    assert draft.tools == [LOOKUP]


def test_other_columns_become_metadata_and_a_foreign_task_is_none_of_ours() -> None:
    draft = sharegpt.read({**HERMES, "reward": 0.5, "success": "yes", "memgen": {"task": "orders"}, "empty": None})
    assert (draft.task, draft.reward, draft.success, draft.trajectory_id) == ("orders", 0.5, None, "7f")
    assert draft.metadata == {"category": "Orders", "task": "Track orders", "success": "yes"}


def test_calls_that_glaive_and_hermes_spell() -> None:
    glaive = 'Let me see. <functioncall> {"name": "lookup", "arguments": \'{"order": "it\\\'s"}\'} <|endoftext|>'
    hermes_system = (
        "You are provided with signatures within <tools> </tools> XML tags.\n<tools>\n"
        f"{json.dumps(LOOKUP)}\n{json.dumps(changed(LOOKUP, 'function', 'name', to='track'))}\n</tools>"
    )
    row = {
        "conversations": [
            {"from": "system", "value": hermes_system},
            {"from": "human", "value": "Go"},
            {"from": "gpt", "value": "<think>\nHm.\n</think>\n\n" + glaive.replace("\\'s", "")},
            {"from": "tool", "value": "found"},
            {"from": "gpt", "value": "Found.", "weight": 1},
        ]
    }
    draft = sharegpt.read(row)
    assert [tool["function"]["name"] for tool in draft.tools or ()] == ["lookup", "track"]
    turn = draft.messages[2]
    assert (turn["content"], turn["reasoning_content"]) == ("Let me see.", "Hm.")
    assert json.loads(turn["tool_calls"][0]["function"]["arguments"]) == {"order": "it"}
    for spelled in ("<tool_call>{broken</tool_call>", "<tool_call>7</tool_call>", "a </tool_call> b", "<functioncall>"):
        text = sharegpt.read({"conversations": [ASKED, {"from": "gpt", "value": spelled}]}).messages[1]
        assert text == {"role": "assistant", "content": spelled}, "what is no call stays text"


def test_what_follows_calls_in_plain_words_is_said_by_the_user() -> None:
    """ToolACE writes calls as `[lookup(order="7")]`, ToolBench as `Action: lookup`: nothing waits for the result."""
    call, result = '[lookup(order="7")]', '[{"state": "shipped"}]'
    turns = [ASKED, {"from": "gpt", "value": call}, {"from": "tool", "value": result}, TOLD]
    rows = [{"role": "user" if each is ASKED else each["from"].replace("gpt", "assistant"), "content": each["value"]}
            for each in turns]  # fmt: skip
    for draft in (sharegpt.read({"conversations": turns}), hf_tools.read({"messages": rows})):
        assert [(m["role"], m["content"]) for m in draft.messages] == [
            ("user", ASKED["value"]), ("assistant", call), ("user", result), ("assistant", TOLD["value"]),
        ]  # fmt: skip


def test_calls_directly_behind_an_answer_are_its_own() -> None:
    called = {"role": "tool_call", "content": str(SEVEN)}
    answer = {"role": "assistant", "content": "I look."}
    results = [{"role": "tool_response", "content": each} for each in ("shipped", "again")]
    turn = hf_tools.read({"messages": [EXPECTED[1], answer, called, called, *results, EXPECTED[-1]]}).messages[1]
    assert (turn["content"], [call["id"] for call in turn["tool_calls"]]) == ("I look.", ["call_1", "call_2"])
    row = {"conversations": [ASKED, {"from": "gpt", "value": "I look.", "loss": False}, CALLED, CALLED]}
    turns = sharegpt.read(row).messages[1:]
    assert [(m["content"], m.get("weight"), len(m.get("tool_calls", ()))) for m in turns] == [
        ("I look.", 0, 0), (None, None, 2),
    ]  # fmt: skip


def test_a_greeting_in_front_is_context() -> None:
    hello = {"from": "gpt", "value": "Hello."}
    assert sharegpt.read({"conversations": [hello, ASKED, TOLD]}).messages[0]["weight"] == 0
    assert hf_tools.read({"conversations": [EXPECTED[-1], *EXPECTED]}).messages[0]["weight"] == 0
    with pytest.raises(InvalidTrajectory) as caught:
        sharegpt.read({"conversations": [{**hello, "weight": 1}, ASKED, TOLD]})
    assert caught.value.code == "assistant_first"


def test_weights_of_turns() -> None:
    row = {"conversations": [ASKED, {**TOLD, "loss": False}, ASKED, {**TOLD, "train": True}, ASKED, TOLD]}
    assert [m.get("weight") for m in sharegpt.read(row).messages if m["role"] == "assistant"] == [0, 1, None]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ([], "not_an_object"),
        ({}, "conversations_missing"),
        ({"conversations": "x"}, "conversations_missing"),
        ({"conversations": [7]}, "message_not_object"),
        ({"conversations": []}, "messages_empty"),
        ({"conversations": [{"from": "narrator", "value": "x"}]}, "role_unknown"),
        ({"conversations": [{"value": "x"}]}, "role_unknown"),
        ({"conversations": [ASKED, {"from": "gpt", "value": 7}]}, "content_type"),
        ({"conversations": [ASKED, {"from": "gpt"}]}, "assistant_empty"),
        ({"conversations": [ASKED, {"from": "function_call", "value": "look"}, TOLD]}, "function_call_malformed"),
        ({"conversations": [ASKED, {"from": "function_call", "value": "[]"}, TOLD]}, "function_call_malformed"),
        ({"conversations": [ASKED, {"from": "function_call", "value": '{"name": 7}'}]}, "function_call_malformed"),
        ({"conversations": [ASKED, {"from": "gpt", "value": "a", "tool_calls": [7]}]}, "tool_calls_malformed"),
        (
            {"conversations": [ASKED, CALLED, *[{"from": "observation", "value": "x"}] * 2, TOLD]},
            "tool_call_id_missing",
        ),
        ({"conversations": [ASKED, TOLD], "tools": "{"}, "tools_malformed"),
        ({"conversations": [ASKED, TOLD], "tools": 7}, "tools_malformed"),
        ({"conversations": [ASKED, TOLD], "memgen": 7}, "memgen_invalid"),
        ({"conversations": [ASKED, TOLD], "memgen": {"reward": "x"}}, "reward_invalid"),
        ({"conversations": [ASKED, TOLD], "memgen": {"x": 1}}, "unknown_field"),
    ],
)
def test_each_fault_of_a_sharegpt_row_has_its_code(row: object, code: str) -> None:
    with pytest.raises(InvalidTrajectory) as caught:
        sharegpt.read(row)
    assert caught.value.code == code


# Hugging Face

TRACK = {
    "type": "function",
    "function": {
        "name": "track",
        "description": "Follow a parcel",
        "parameters": {"type": "object", "properties": {"parcel": {"type": "integer", "enum": [1, 2]}}},
    },
}


def _hf_row() -> dict[str, Any]:
    calls = [{"type": "function", "function": call} for call in (SEVEN, EIGHT)]
    return {
        "messages": [
            *EXPECTED[:2],
            {"role": "assistant", "tool_calls": calls},
            {"role": "tool", "name": "lookup", "content": "shipped"},
            {"role": "tool", "name": "lookup", "content": "lost"},
            EXPECTED[-1],
        ],
        "tools": [LOOKUP],
    }


@pytest.mark.parametrize("lines", [True, False], ids=["JSONL", "a list"])
def test_an_export_of_datasets_is_read(tmp_path: Path, lines: bool) -> None:
    """Arrow gives every struct the fields of all others, with nulls: in messages, arguments and schemas."""
    from datasets import Dataset

    other = {
        "messages": [
            {"role": "user", "content": "Track 3."},
            {"role": "assistant", "tool_calls": [{"function": {"name": "track", "arguments": {"parcel": 3}}}]},
            {"role": "tool", "name": "track", "content": "here"},
            {"role": "assistant", "content": "Here."},
        ],
        "tools": [TRACK],
        "reward": 1.0,
    }  # fmt: skip
    data = Dataset.from_list([{**_hf_row(), "reward": None}, other])
    assert data[0]["messages"][2]["tool_calls"][0]["function"]["arguments"] == {"order": "7", "parcel": None}
    file = tmp_path / "rows"
    data.to_json(file, lines=lines, **({} if lines else {"orient": "records"}))
    first, second = drafts(read_file(file.read_bytes(), "hf-tools"))
    assert (first.messages, first.tools, first.reward) == (EXPECTED[:2] + EXPECTED[2:], [LOOKUP], None)
    assert second.messages[1]["tool_calls"][0]["function"]["arguments"] == '{"parcel": 3}'
    assert (second.tools, second.reward, second.metadata) == ([TRACK], 1.0, {})


def test_texts_of_json_and_other_spellings() -> None:
    row = _hf_row()
    as_texts = {"messages": json.dumps(row["messages"]), "tools": json.dumps([LOOKUP["function"]]), "id": 12}
    draft = hf_tools.read(as_texts)
    assert (draft.messages, draft.tools, draft.trajectory_id) == (EXPECTED, [LOOKUP], "12")
    flat = changed(row, "messages", 2, "tool_calls", to=[SEVEN, {**EIGHT, "arguments": json.dumps(EIGHT["arguments"])}])
    assert hf_tools.read(flat).messages == EXPECTED
    schema = json.dumps(LOOKUP["function"]["parameters"])  # type: ignore[index]  # an object
    assert hf_tools.read(changed(row, "tools", 0, "function", "parameters", to=schema)).tools == [LOOKUP]
    swift = changed(row, "messages", 2, to={"role": "tool_call", "content": json.dumps([SEVEN, EIGHT])})
    assert hf_tools.read(swift).messages == EXPECTED
    by_str = changed(row, "messages", 2, to={"role": "tool_call", "content": str([SEVEN, EIGHT])})
    assert hf_tools.read(by_str).messages == EXPECTED, "as Toucan's rows are written"
    assert hf_tools.read({"trajectory": row["messages"], "messages": None, "functions": [LOOKUP]}) == hf_tools.read(row)
    objects = changed(row, "messages", 3, "content", to={"state": "shipped"})
    assert hf_tools.read(objects).messages[3]["content"] == '{"state": "shipped"}'


def test_openais_older_calls_are_calls() -> None:
    called = {"role": "assistant", "content": None, "function_call": {**SEVEN, "arguments": '{"order": "7"}'}}
    found = {"role": "function", "name": "lookup", "content": "shipped"}
    messages = hf_tools.read({"messages": [EXPECTED[1], called, found, EXPECTED[-1]]}).messages
    assert messages[1]["tool_calls"][0] == EXPECTED[2]["tool_calls"][0]  # type: ignore[index]  # a list
    assert messages[2] == EXPECTED[3]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': True, \"b\": [None, -1.5e3, 'it\\'s']}", {"a": True, "b": [None, -1500.0, "it's"]}),
        ('{"a": 1}', {"a": 1}),
        *((text, None) for text in ("{'a'}", "{'a': (1,)}", "{'a': f'{1}'}", "{'a': b'c'}", "[f(a=1)]", "{'a': 1e999}",
                                    "{'a': '\ud800'}", "['" + "x" * 100_000 + "']", "[" * 90_000, "[" + "-" * 90_000,
                                    "[1" + "-1" * 45_000 + "]", "[" + "{1:" * 20_000)),
    ],
)  # fmt: skip
def test_a_literal_is_read_and_nothing_that_computes(text: str, value: object) -> None:
    assert parsed_text(text) == (text if value is None else value)


def test_results_find_the_call_of_their_name() -> None:
    calls = [{"function": {"name": name, "arguments": {}}} for name in ("a", "b", "a")]
    results = [{"role": "tool", "name": name, "content": name + n} for name, n in (("b", "1"), ("a", "1"), ("a", "2"))]
    row = {"messages": [EXPECTED[1], {"role": "assistant", "tool_calls": calls}, *results, EXPECTED[-1]]}
    found = [(m["tool_call_id"], m["content"]) for m in hf_tools.read(row).messages if m["role"] == "tool"]
    assert found == [("call_2", "b1"), ("call_1", "a1"), ("call_3", "a2")]


def test_prompt_and_completion_are_context_and_answer() -> None:
    row = {"prompt": [EXPECTED[1], EXPECTED[-1], EXPECTED[1]], "completion": [EXPECTED[-1]], "messages": None}
    assert [m.get("weight") for m in hf_tools.read(row).messages if m["role"] == "assistant"] == [0, None]


def test_what_has_ids_keeps_them() -> None:
    sent = tool_chat()
    assert hf_tools.read(sent).messages[2]["tool_calls"][0]["id"] == "c1"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (7, "not_an_object"),
        ({}, "messages_missing"),
        ({"messages": "text"}, "messages_not_list"),
        ({"messages": [7]}, "message_not_object"),
        ({"messages": [{"role": None, "content": "x"}]}, "role_unknown"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "role_unknown"),
        ({"messages": [EXPECTED[1], {"role": "assistant", "tool_calls": [7]}]}, "tool_calls_malformed"),
        ({"messages": [EXPECTED[1], {"role": "assistant", "tool_calls": [{}]}]}, "tool_call_no_name"),
        ({"messages": [EXPECTED[1], {"role": "assistant", "tool_calls": [{"name": "f", "arguments": [1]}]}]},
         "tool_call_arguments"),
    ],
)  # fmt: skip
def test_each_fault_of_a_row_has_its_code(row: object, code: str) -> None:
    with pytest.raises(InvalidTrajectory) as caught:
        hf_tools.read(row)
    assert caught.value.code == code


KEYS = [
    *("conversations", "messages", "from", "role", "value", "content", "tool_calls", "function", "name", "arguments"),
    *("tools", "system", "weight", "prompt", "completion", "memgen", "parameters", "properties", "id", "type"),
]
TEXTS = st.sampled_from(
    ["human", "gpt", "user", "assistant", "tool", "function_call", "<tool_call>", "{}", "[]", '{"name": "f"}', "\ud83d"]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)


@settings(max_examples=200, deadline=None)
@given(anything, st.sampled_from([sharegpt.read, hf_tools.read]))
def test_any_value_is_read_or_refused(value: object, read: Any) -> None:
    try:
        found = read(value)
    except InvalidTrajectory as refusal:
        found = refusal
    assert isinstance(found, Draft) or len(str(found).encode("utf-8", "replace")) < 2000


@pytest.mark.parametrize("depth", [50, 150, 480, 900, 100_000])
def test_a_row_that_is_nested_deeply_hinders_no_other(depth: int) -> None:
    deep = '{"a":' * depth + "1" + "}" * depth
    good = json.dumps({"messages": EXPECTED})
    asked = {"role": "user", "content": "q"}
    calling = {"messages": [asked, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "DEEP"}]}]}
    declaring = {"messages": [asked, EXPECTED[-1]], "tools": [{"name": "f", "parameters": "DEEP"}]}
    for row in (calling, declaring):
        text = json.dumps(row).replace('"DEEP"', deep)
        found = [sent for _, sent in read_file(f"{text}\n{good}".encode(), "hf-tools")]
        assert isinstance(found[1], Draft)
        assert isinstance(found[0], Draft if depth < 100 else InvalidTrajectory)


@pytest.mark.parametrize(
    "value",
    [
        "<tool_call>" * 100_000,
        "<tool_response>" * 100_000,
        '"arguments": \'' * 50_000,
        "<think>" * 100_000,
        " " * 10**6,
        "<tool_call>{'a': " * 50_000,
    ],
)
def test_time_is_linear_in_what_is_spelled(value: str) -> None:
    began = time.monotonic()
    call = {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}
    for turn in ({"from": "gpt", "value": value}, {"from": "tool", "value": value}):
        row = {"conversations": [{"from": "system", "value": "<tools>" * 50_000}, ASKED, call, call, turn, TOLD]}
        with suppress(InvalidTrajectory):
            sharegpt.read(row)
    many = [{"function": {"name": "f", "arguments": {}}}] * 5_000
    words = [{"role": "assistant", "content": "x"}, *[{"role": "tool", "content": ""}] * 50_000]
    hf_tools.read({"messages": [EXPECTED[1], *words, *[{"role": "tool_call", "content": str(SEVEN)}] * 5_000]})
    hf_tools.read({"messages": [EXPECTED[1], {"role": "assistant", "tool_calls": many},
                                *[{"role": "tool", "name": "f", "content": ""}] * 5_000, EXPECTED[-1]]})  # fmt: skip
    assert time.monotonic() - began < 5
