"""Reading generated text: content and tool calls."""

import pytest

from memgen.text.answers import Answer, parse_answer


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
