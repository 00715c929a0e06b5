"""Reading generated text: reasoning, content and tool calls."""

import json
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memgen.text.answers import Answer, answer_message, message_calls, message_text, parse_answer
from memgen.text.calls import call_text


def called(**arguments: Any) -> Answer:
    return Answer(None, ({"name": "f", "arguments": arguments},))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", Answer("plain")),
        ("", Answer(None)),
        (
            'ok <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>',
            Answer("ok", ({"name": "f", "arguments": {"x": 1}},)),
        ),
        ('<tool_call>{"name": "f"}', Answer(None, ({"name": "f", "arguments": {}},))),
        ("<tool_call>{broken</tool_call>", Answer("<tool_call>{broken</tool_call>")),
        ('<tool_call>{"name": 3}</tool_call>', Answer('<tool_call>{"name": 3}</tool_call>')),
        (
            '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
            Answer('<tool_call>{"name": "f", "arguments": [1]}</tool_call>'),
        ),
    ],
)
def test_calls_are_read_back(text: str, expected: Answer) -> None:
    assert parse_answer(text) == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ('{"name": "f", "arguments": null}', called()),
        ('{"name": "f", "arguments": ""}', called()),
        ('{"name": "f", "arguments": "null"}', called()),
        ('{"name": "f", "parameters": {"x": 1}}', called(x=1)),
        ('{"name": "f", "arguments": null, "parameters": {"x": 1}}', called(x=1)),
        ('{"name": "f", "arguments": "{\\"x\\": 1}"}', called(x=1)),
        (json.dumps({"name": "f", "arguments": json.dumps(json.dumps({"x": "</tool_"}))}), called(x="</tool_")),
        ('{"name": "f", "arguments": {"x": "<tool_call>{}"}}', called(x="<tool_call>{}")),
        ('{"name": "f", "arguments": {"x": "\\ud83d"}}', called(x="\ufffd")),
        ('{"name": "f", "arguments": "{\\"x\\": \\"\\\\ud83d\\"}"}', called(x="\ufffd")),
        ('{"name": "f", "arguments": {"x": "\\ud83d\\ude00"}}', called(x="\N{GRINNING FACE}")),
        ('\n {"name": "f"} \n', called()),
    ],
)  # fmt: skip
def test_arguments_in_other_forms_are_the_same_call(call: str, expected: Answer) -> None:
    assert parse_answer(f"<tool_call>{call}</tool_call>") == expected


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "call",
    [
        '{"name": "f", "arguments": {"x": NaN}}',
        '{"name": "f", "arguments": {"x": -Infinity}}',
        '{"name": "f", "arguments": {"x": 1e999}}',
        f'{{"name": "f", "arguments": {{"x": {"9" * 400}}}}}',
        f'{{"name": "f", "arguments": {{"x": {"9" * 10_000}}}}}',
        f'{{"name": "f", "arguments": {{"x": {DEEP}}}}}',
        json.dumps({"name": "f", "arguments": f'{{"x": {DEEP}}}'}),
        '{"name": "f", "arguments": "{"}',
        '{"name": "f", "arguments": "[1]"}',
        '{"name": "f", "arguments": false}',
        '{"name": "", "arguments": {}}',
        '{"name": null}',
        '{"name": "f"} and so on',
        '[{"name": "f"}]',
    ],
    ids=lambda call: call[:50],
)
def test_what_cannot_be_a_call_stays_text(call: str) -> None:
    text = f"<tool_call>{call}</tool_call>"
    assert parse_answer(text) == Answer(text)


def test_a_call_may_end_where_the_next_begins() -> None:
    answer = parse_answer('a <tool_call>{"name": "f"}\n<tool_call>{"name": "g"}</tool_call> b')
    assert [call["name"] for call in answer.tool_calls] == ["f", "g"]
    assert answer.content == "a\nb"


@pytest.mark.parametrize(
    ("text", "opened", "cut", "expected"),
    [
        ("<think>a</think>b", False, False, Answer("b", reasoning="a")),
        ("\n<think>\na\n</think>\n\nb", False, False, Answer("b", reasoning="a")),
        ("<think>\n\n</think>\n\nb", False, False, Answer("b")),
        ("a</think>b", True, False, Answer("b", reasoning="a")),
        ("a</think>b", False, False, Answer("a</think>b")),
        ("<think>a", False, True, Answer(None, reasoning="a")),
        ("<think>a", False, False, Answer(None, reasoning="a")),
        ("a", True, True, Answer(None, reasoning="a")),
        ("a", True, False, Answer("a")),
        ("<think>a</think>", True, False, Answer(None, reasoning="a")),
        ("<think>a</think><think>b</think>c", False, False, Answer("c", reasoning="a\nb")),
        ("b <think>a</think>", False, False, Answer("b <think>a</think>")),
        ('<think><tool_call>{"name": "f"}</tool_call></think>b', False, False,
         Answer("b", reasoning='<tool_call>{"name": "f"}</tool_call>')),
        ('a</think><tool_call>{"name": "f"}</tool_call>', True, False,
         Answer(None, ({"name": "f", "arguments": {}},), "a")),
        ('<tool_call>{"name": "f"}</tool_call><think>a</think>b', False, False,
         Answer("b", ({"name": "f", "arguments": {}},), "a")),
    ],
)  # fmt: skip
def test_reasoning_is_no_content(text: str, opened: bool, cut: bool, expected: Answer) -> None:
    assert parse_answer(text, opened=opened, cut=cut) == expected


def test_without_tools_the_content_is_all_but_the_reasoning() -> None:
    text = ' <tool_call>{"name": "f"}</tool_call>\n'
    assert parse_answer(text, calls=False) == Answer(text)
    assert parse_answer(f"<think>a</think>{text}", calls=False) == Answer(text.lstrip(), reasoning="a")


WHOLE = '<tool_call>{"name": "f"}</tool_call>'


@pytest.mark.parametrize(
    "half",
    ["<tool", "<tool_call", "<tool_call>", "<tool_call>\n", '<tool_call>{"na',
     '<tool_call>{"name": "g", "arguments": {"x": [1, "<tool_'],
)  # fmt: skip
def test_half_a_call_at_the_token_limit_is_dropped(half: str) -> None:
    assert parse_answer(f"a {WHOLE} b {half}", cut=True) == Answer("a\nb", ({"name": "f", "arguments": {}},))
    assert parse_answer(half, cut=True) == Answer(None)
    assert parse_answer(f"a {half}") == Answer(f"a {half}".strip())


@pytest.mark.parametrize("end", ["", "<", "</tool_cal", "</tool_call>"])
def test_a_whole_call_at_the_token_limit_is_a_call(end: str) -> None:
    assert parse_answer(f'<tool_call>{{"name": "f"}}{end}', cut=True) == called()


def test_what_ends_in_another_way_is_kept_at_the_token_limit() -> None:
    for text in ("a < b", "<tool_call>{broken</tool_call> and", "a <", "a <to"):
        assert parse_answer(text, cut=True) == Answer(text)


PARTS = [
    "<tool_call>",
    "</tool_call>",
    "<think>",
    "</think>",
    '{"name": "f", "arguments": {"x": "',
    '"}}',
    '{"name": "g"}',
    '"',
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\\",
    "\n",
    " ",
    "\xa0",
    "a",
    "\ud83d",
    "\\ud83d",
    '{"name": "h", "arguments": "{}"}',
    '{"name":"f","arguments":{"a":[1,',
    "2]}}",
    "<tool_",
    "call>",
    "NaN",
    "1e999",
    "\0",
    "null",
]
SAID = st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=24).map("".join)


AROUND_A_CALL = [
    f'<tool_call>{WHOLE}{{"name": "g"}}</tool_call>',
    f'<tool_call>{{"name": "g", "arguments": {{"x": [1,{WHOLE} 2]}}}}</tool_call>',
]


def written(answer: Answer) -> str:
    return "\n".join(
        [*filter(None, [answer.content]), *(call_text(c["name"], c["arguments"]) for c in answer.tool_calls)]
    )


@settings(derandomize=True, deadline=None, max_examples=1500)
@example(text=AROUND_A_CALL[0], opened=False, cut=False, calls=True)
@example(text=AROUND_A_CALL[1], opened=False, cut=True, calls=True)
@given(text=SAID, opened=st.booleans(), cut=st.booleans(), calls=st.booleans())
def test_an_answer_written_out_is_read_as_itself(text: str, opened: bool, cut: bool, calls: bool) -> None:
    answer = parse_answer(text, opened=opened, cut=cut, calls=calls)
    json.dumps([answer.content, answer.tool_calls, answer.reasoning], allow_nan=False, ensure_ascii=False).encode()
    if calls:
        assert parse_answer(written(answer)) == Answer(answer.content, answer.tool_calls)
    message = answer_message(answer)
    assert message_calls(message) == list(answer.tool_calls)
    assert message_text(message) == (answer.content or "")
    assert all(call["name"] for call in answer.tool_calls)


@pytest.mark.parametrize(
    "unit",
    [
        "<tool_call>",
        "<tool_call>{",
        '<tool_call>{"',
        "{",
        "[",
        "<think>",
        "<think></think>",
        "</think>",
        '<tool_call>["',
        "\\",
        '<tool_call>{"name":"f"}',
        '<tool_call>{"a":[',
        " ",
        '<tool_call>{",":",',
        '"',
        '<tool_call>{"\\',
        "<tool_call> ",
        '<tool_call>{"name": "f", "arguments": "',
        "<tool_call>{}</tool_call>",
    ],
)
@pytest.mark.parametrize("start", ["", '<tool_call>{"', "<tool_call>{", "<think>"])
def test_reading_costs_as_much_as_the_text_is_long(unit: str, start: str) -> None:
    def seconds(size: int) -> float:
        text = start + unit * (size // len(unit))
        spent = []
        for _ in range(3):
            begun = time.process_time()
            parse_answer(text, cut=True)
            spent.append(time.process_time() - begun)
        return min(spent)

    # Twenty times the text; work that grows with its square would cost four hundred times as much.
    assert seconds(500_000) <= 100 * max(seconds(25_000), 0.0005)
