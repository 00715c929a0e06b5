"""What clients do to a conversation that they go on with, and what they don't."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.trajectories.continuation import tip_of, tools_hash, turn_points, with_ids_of

ASKED: dict[str, Any] = {"role": "user", "content": "Where is order 7?"}
CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "find", "arguments": '{"order": 7, "fast": true, "share": 1.0, "name": "Zoë"}'},
}
ANSWER: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"}
RESULT: dict[str, Any] = {"role": "tool", "tool_call_id": "call_1", "content": "in Ghent"}


def recalled(**changes: Any) -> dict[str, Any]:
    return {**ANSWER, **changes}


def called(arguments: object, **changes: Any) -> dict[str, Any]:
    return recalled(tool_calls=[{**CALL, "function": {"name": "find", "arguments": arguments}, **changes}])


SAME = {
    "as it was": ANSWER,
    "empty content": recalled(content=""),
    "no content": {key: value for key, value in ANSWER.items() if key != "content"},
    "an empty list of parts": recalled(content=[]),
    "no thoughts": {key: value for key, value in ANSWER.items() if key != "reasoning_content"},
    "extra fields": recalled(refusal=None, annotations=[], audio=None, function_call=None, name="bot", weight=1),
    "arguments with other spaces": called('{"order":7,"fast":true,"share":1.0,"name":"Zoë"}'),
    "arguments in another order": called('{"name": "Zoë", "share": 1.0, "fast": true, "order": 7}'),
    "arguments through JavaScript": called('{"order":7,"fast":true,"share":1,"name":"Zoë"}'),
    "arguments with escapes": called('{"order": 7, "fast": true, "share": 1.0, "name": "Zo\\u00eb"}'),
    "arguments with line breaks": called('{\n  "order": 7,\n  "fast": true,\n  "share": 1.0,\n  "name": "Zoë"\n}\n'),
    "arguments as an object": called({"order": 7, "fast": True, "share": 1.0, "name": "Zoë"}),
    "another id": called(CALL["function"]["arguments"], id="toolu_9"),
    "no type": recalled(tool_calls=[{"id": "call_1", "function": CALL["function"]}]),
    "the index of a stream": recalled(tool_calls=[{**CALL, "index": 0}]),
    "as a function_call": {"role": "assistant", "content": None, "function_call": CALL["function"]},
}
OTHER = {
    "another argument": called('{"order": 8, "fast": true, "share": 1.0, "name": "Zoë"}'),
    "an argument less": called('{"order": 7, "fast": true, "share": 1.0}'),
    "a number as text": called('{"order": "7", "fast": true, "share": 1.0, "name": "Zoë"}'),
    "true as 1": called('{"order": 7, "fast": 1, "share": 1.0, "name": "Zoë"}'),
    "another function": recalled(tool_calls=[{**CALL, "function": {**CALL["function"], "name": "look"}}]),
    "no call": recalled(tool_calls=None),
    "two calls": recalled(tool_calls=[CALL, CALL]),
    "a text beside it": recalled(content="I look."),
    "said by the user": {**ANSWER, "role": "user"},
}


@pytest.mark.parametrize("echo", SAME.values(), ids=SAME)
def test_an_answer_sent_back_is_the_same(echo: dict[str, Any]) -> None:
    points = turn_points([ASKED, echo, RESULT])
    assert [point.hash for point in points] == [tip_of([ASKED], ANSWER)]
    assert (points[0].start, points[0].end) == (1, 2)


@pytest.mark.parametrize("echo", OTHER.values(), ids=OTHER)
def test_another_answer_is_another(echo: dict[str, Any]) -> None:
    assert tip_of([ASKED], ANSWER) not in [point.hash for point in turn_points([ASKED, echo, RESULT])]


TEXTS: list[Any] = [
    "Hello there.",
    "  Hello there.\n",
    [{"type": "text", "text": "Hello there."}],
    [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there."}],
    [{"type": "output_text", "text": "Hello there.", "annotations": []}],
    [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "Hello there."}],
]


@pytest.mark.parametrize("content", TEXTS)
def test_a_text_is_one_however_it_is_written(content: Any) -> None:
    tip = tip_of([{"role": "system", "content": "Be brief."}, ASKED], {"role": "assistant", "content": "Hello there."})
    echoed = [{"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}, ASKED]
    assert turn_points([*echoed, {"role": "assistant", "content": content}, ASKED])[0].hash == tip


def test_one_answer_as_two_messages() -> None:
    """As the Responses API's items come back: a message, then a call."""
    whole = {"role": "assistant", "content": "I look.", "tool_calls": [CALL]}
    parts = [{"role": "assistant", "content": "I look."}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    points = turn_points([ASKED, *parts, RESULT, ANSWER])
    assert [(point.start, point.end) for point in points] == [(1, 3), (4, 5)]
    assert points[0].hash == tip_of([ASKED], whole)


@pytest.mark.parametrize(
    "edited",
    [
        [{"role": "user", "content": "Where is order 8?"}, ANSWER],
        [ANSWER],
        [ASKED, ASKED, ANSWER],
        [{"role": "system", "content": "Be brief."}, ASKED, ANSWER],
        [{"role": "system", "content": ASKED["content"]}, ANSWER],
    ],
    ids=["another question", "none", "twice", "a system message more", "said by the system"],
)
def test_an_edited_history_is_another(edited: list[Any]) -> None:
    assert tip_of([ASKED], ANSWER) not in [point.hash for point in turn_points(edited)]


def test_texts_that_run_together_are_apart() -> None:
    """No text can pretend to be the message that follows it."""
    one = [{"role": "user", "content": 'a",[]]["user","b'}, ANSWER]
    two = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, ANSWER]
    assert turn_points(one)[0].hash != turn_points(two)[0].hash


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
def test_arguments_may_be_anything(value: Any) -> None:
    text = json.dumps(value)
    tip = tip_of([ASKED], called(text))
    assert tip == tip_of([ASKED], called(json.dumps(value, indent=2, sort_keys=True)))


@pytest.mark.parametrize("arguments", ["", "{", "null", None, "[" * 100_000, '{"a": 1e999}', '{"a": "\\ud83d"}', 7])
def test_hostile_arguments(arguments: Any) -> None:
    assert len(tip_of([ASKED], called(arguments))) == 64


def test_no_arguments_are_an_empty_object() -> None:
    assert len({tip_of([ASKED], called(none)) for none in ("", "{}", " {} ", None, "null", {})}) == 1


def test_tools_count_as_they_are_offered() -> None:
    tools: list[Any] = [{"type": "function", "function": {"name": name}} for name in ("a", "b")]
    assert tools_hash(None) == tools_hash([]) is None
    assert tools_hash(tools) == tools_hash([dict(reversed(tool.items())) for tool in tools])
    assert tools_hash(tools) != tools_hash(tools[::-1])


def test_the_clients_ids_are_taken() -> None:
    own = [recalled(tool_calls=[CALL, {**CALL, "id": "call_2"}])]
    echo = [recalled(tool_calls=[{**CALL, "id": "x"}]), recalled(tool_calls=[{**CALL, "id": "y"}])]
    [taken] = with_ids_of(own, echo)
    assert [call["id"] for call in taken["tool_calls"]] == ["x", "y"]
    assert own[0]["tool_calls"][0]["id"] == "call_1", "the recorded message is left alone"
    assert with_ids_of(own, [recalled(tool_calls=[CALL])]) is own
    assert with_ids_of(own, own) is own
