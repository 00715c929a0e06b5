"""Calls in the pieces of an answer, against the reading of its whole."""

from hypothesis import given, settings
from hypothesis import strategies as st

from memgen.text.answers import parse_answer
from memgen.text.calls import CallStream, call_text

FRAGMENTS = [
    *("<tool_call>", "</tool_call>", "<tool", "_call>", "<", ">", " ", "\n", "x", '"', "{", "}", "[", "\\", "<think>"),
    *('{"name": "go", "arguments": {}}', call_text("go", {"to": "<tool_call>"}), call_text("stop", {}), '{"name": "'),
    *(call_text("go", {"a": '</tool_call>"'}), "\u2028", "…", "</think>"),
]
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join)


@settings(deadline=None, max_examples=400)
@given(text=texts, sizes=st.lists(st.integers(1, 9), min_size=1), cut=st.booleans())
def test_what_a_stream_tells_is_a_beginning_of_what_the_whole_is(text: str, sizes: list[int], cut: bool) -> None:
    """Of texts that begin with no thought, which is another's to split off."""
    if text.lstrip().startswith("<think>"):
        return
    whole = parse_answer(text, cut=cut)
    stream, content, calls, at = CallStream(), "", [], 0
    while at < len(text):
        size = sizes[at % len(sizes)]
        more, called = stream.push(text[at : at + size])
        assert more == "" or not calls, "text behind a call waits for the end"
        content, at = content + more, at + size
        calls += called
    assert (whole.content or "").startswith(content)
    assert list(whole.tool_calls[: len(calls)]) == calls


def test_text_comes_at_once_and_a_call_when_it_is_whole() -> None:
    stream = CallStream()
    assert stream.push("  Wait") == ("Wait", [])
    assert stream.push(" a bit. ") == (" a bit.", [])
    assert stream.push("<tool_") == ("", [])
    assert stream.push("box> ") == (" <tool_box>", [])
    assert stream.push('<tool_call>{"name": "go", "arguments": {"to": "x"}}') == ("", [])
    assert stream.push("</tool_cal") == ("", [])
    assert stream.push("l> and") == ("", [{"name": "go", "arguments": {"to": "x"}}])


def test_what_is_no_call_after_all_is_text() -> None:
    stream = CallStream()
    assert stream.push("<tool_call>no") == ("<tool_call>no", [])
    assert stream.push('<tool_call>{"name": "go"') == ("", [])
    assert stream.push("} > yes") == ('<tool_call>{"name": "go"} > yes', [])
