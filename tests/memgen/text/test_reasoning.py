"""Thoughts in front of an answer, whole and in pieces."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memgen.text.reasoning import ReasoningStream, joined_thoughts, opens_reasoning, split_reasoning
from tests.memgen.tokenizer_samples import byte_tokenizer

PARTS = ["<think>", "</think>", "<", "thi", "nk>", "/", " ", "\n", "\xa0", "a", "b"]


@settings(derandomize=True, deadline=None, max_examples=1500)
@given(pieces=st.lists(st.sampled_from(PARTS), max_size=16), opened=st.booleans(), cut=st.booleans())
def test_pieces_are_told_apart_as_the_whole_is(pieces: list[str], opened: bool, cut: bool) -> None:
    text = "".join(pieces)
    stream = ReasoningStream(opened=opened)
    told = [stream.push(piece) for piece in pieces]
    reasoning, content = ("".join(parts) for parts in zip(*told, strict=True)) if told else ("", "")
    thoughts, rest = split_reasoning(text, opened=opened, cut=cut)
    assert rest.startswith(content)
    if opened and "</think>" not in text and not cut and not text.lstrip().startswith("<think>"):
        assert (thoughts, rest, content) == ((), text, "")
    else:
        assert (joined_thoughts(thoughts) or "").startswith(reasoning)
    # What is held back is white space, or could still have become a mark.
    held = (joined_thoughts(thoughts) or "")[len(reasoning) :].strip()
    assert "</think>".startswith(held) or "<think>".startswith(held)
    assert "<think>".startswith(rest[len(content) :].strip()) or (opened and not thoughts)


def test_nothing_is_held_of_an_answer_without_thoughts() -> None:
    stream = ReasoningStream(opened=False)
    assert [stream.push(piece) for piece in (" ", "<t", "o", "<think>")] == [
        ("", ""),
        ("", ""),
        ("", " <to"),
        ("", "<think>"),
    ]


def test_thoughts_come_while_they_are_thought() -> None:
    stream = ReasoningStream(opened=True)
    assert [stream.push(piece) for piece in ("\na", " ", "b", "</thi", "nk>", "\n", "c")] == [
        ("a", ""),
        ("", ""),
        (" b", ""),
        ("", ""),
        ("", ""),
        ("", ""),
        ("", "c"),
    ]


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [("hi<think>", True), ("hi<think>\n", True), ("hi<think></think>", False), ("<think> hi", False), ("", False)],
)
def test_whether_a_prompt_opens_a_thought(tmp_path: Path, prompt: str, opened: bool) -> None:
    tokenizer = byte_tokenizer(tmp_path)
    assert opens_reasoning(tokenizer, tokenizer(prompt, add_special_tokens=False).input_ids) is opened
