"""Text from tokens, piece by piece, against decoding all of them at once."""

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from memgen.errors import ConfigError
from memgen.text.stream import TextStream
from tests.memgen.tokenizer_samples import (
    CountingTokenizer,
    byte_id,
    byte_ids,
    byte_tokenizer,
    merged_tokenizer,
    spaces_tokenizer,
)

EMOJI = "🎉"


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return byte_tokenizer(tmp_path_factory.mktemp("bytes"))


@pytest.fixture(scope="module")
def merged() -> PreTrainedTokenizerBase:
    return merged_tokenizer()


@pytest.fixture(scope="module")
def spaces() -> PreTrainedTokenizerBase:
    return spaces_tokenizer()


def streamed(tokenizer: PreTrainedTokenizerBase, ids: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(tokenizer, stop)
    pieces = [stream.push(token) for token in ids]
    pieces.append(stream.finish())
    assert stream.text == "".join(pieces)
    assert stream.finish() == ""
    return pieces


def cut(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """The text before the stop string that is complete first, of those that end together the longest."""
    for end in range(len(text) + 1):
        lengths = [len(s) for s in stop if text[:end].endswith(s)]
        if lengths:
            return text[: end - max(lengths)], True
    return text, False


@settings(deadline=None)
@given(data=st.data())
def test_the_pieces_are_the_whole(
    bytewise: PreTrainedTokenizerBase, merged: PreTrainedTokenizerBase, data: st.DataObject
) -> None:
    """Any tokens: special ones, bytes that are no UTF-8, characters in parts."""
    tokenizer = data.draw(st.sampled_from([bytewise, merged]))
    runs = data.draw(
        st.lists(
            st.text(max_size=12).map(str.encode)
            | st.binary(max_size=40)
            | st.tuples(st.sampled_from([b"\xff", b"\xe6", b"\xa9", b"\xf0\x9f"]), st.integers(1, 60)).map(
                lambda run: run[0] * run[1]
            )
            | st.lists(st.integers(0, len(tokenizer) - 1), max_size=40),
            max_size=5,
        )
    )
    ids = [token for run in runs for token in (byte_ids(tokenizer, run) if isinstance(run, bytes) else run)]
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


@settings(deadline=None)
@given(
    text=st.text("abé\n", max_size=40),
    stop=st.lists(st.text("abé\n", min_size=1, max_size=4), max_size=3).map(tuple),
    data=st.data(),
)
def test_the_text_ends_before_the_first_stop_string(
    bytewise: PreTrainedTokenizerBase, text: str, stop: tuple[str, ...], data: st.DataObject
) -> None:
    expected, stops = cut(text, stop)
    stream = TextStream(bytewise, stop)
    given_out = ""
    for token in byte_ids(bytewise, text):
        piece = stream.push(token)
        assert not (stream.stopped and stops is False)
        given_out += piece
    # What is given out is never taken back, and what is held back could still have become a stop string.
    held = text[len(given_out) :]
    assert stops or not held or any(s.startswith(held) for s in stop)
    assert given_out + stream.finish() == expected
    assert stream.text == expected
    assert stream.stopped is stops
    if stream.stop_string is None:
        assert not stops
    else:
        assert stream.stop_string in stop
        assert text.startswith(expected + stream.stop_string)


@pytest.mark.parametrize(
    ("stop", "expected"), [(("hello", "ell"), "h"), (("lo", "hello"), ""), (("o", "lo t"), "hell")]
)
def test_the_cut_does_not_depend_on_the_tokens(
    merged: PreTrainedTokenizerBase, stop: tuple[str, ...], expected: str
) -> None:
    whole = merged.convert_tokens_to_ids(["hello", "Ġthe"])
    for ids in (whole, byte_ids(merged, "hello the")):
        assert "".join(streamed(merged, ids, stop)) == expected


def test_no_stop_string_is_looked_for_in_the_least_tokens(bytewise: PreTrainedTokenizerBase) -> None:
    stream = TextStream(bytewise, ("b", "cab"), least_tokens=4)
    pieces = [stream.push(token) for token in byte_ids(bytewise, "abcabc")]
    assert (pieces, stream.stop_string) == (["a", "b", "c", "a", "", ""], "b")


def test_a_stop_string_ends_the_text_at_once(bytewise: PreTrainedTokenizerBase) -> None:
    stream = TextStream(bytewise, ("END",))
    states = [(stream.push(token), stream.stopped) for token in byte_ids(bytewise, "xENEND y")]
    assert states == [
        ("x", False),
        ("", False),
        ("", False),
        ("EN", False),
        ("", False),
        ("", True),
        ("", True),
        ("", True),
    ]
    assert stream.finish() == ""
    assert stream.text == "xEN"


def test_what_was_held_for_a_stop_string_comes_at_the_end(bytewise: PreTrainedTokenizerBase) -> None:
    assert streamed(bytewise, byte_ids(bytewise, "aEN"), ("END",)) == ["a", "", "", "EN"]


def test_plain_text_is_never_held(bytewise: PreTrainedTokenizerBase) -> None:
    assert streamed(bytewise, byte_ids(bytewise, "a b.\n"), ("END",)) == ["a", " ", "b", ".", "\n", ""]


def test_a_character_in_parts_comes_whole(bytewise: PreTrainedTokenizerBase) -> None:
    ids = [*byte_ids(bytewise, "a" + EMOJI), *byte_ids(bytewise, EMOJI.encode()[:3])]
    assert streamed(bytewise, ids) == ["a", "", "", "", EMOJI, "", "", "", "\N{REPLACEMENT CHARACTER}"]


def test_a_character_is_found_behind_any_amount_of_garbage(bytewise: PreTrainedTokenizerBase) -> None:
    for garbage in range(70):
        ids = byte_ids(bytewise, b"\xff" * garbage + EMOJI.encode())
        assert "".join(streamed(bytewise, ids)) == "\N{REPLACEMENT CHARACTER}" * garbage + EMOJI


def test_a_token_may_end_a_character_and_begin_another(merged: PreTrainedTokenizerBase) -> None:
    both = merged.convert_tokens_to_ids("©æ")
    ids = [byte_id(merged, 0xC3), both, *byte_ids(merged, "日".encode()[1:])]
    assert streamed(merged, ids) == ["", "é", "", "日", ""]


def test_special_tokens_are_silent(bytewise: PreTrainedTokenizerBase) -> None:
    first, *rest = byte_ids(bytewise, EMOJI)
    ids = [first, *[bytewise.eos_token_id] * 100, *rest]
    assert "".join(streamed(bytewise, ids)) == EMOJI


def test_a_stop_string_may_be_of_tokens_that_are_not_special(merged: PreTrainedTokenizerBase) -> None:
    ids = [*byte_ids(merged, "a"), *merged.convert_tokens_to_ids(["<think>", "hello"])]
    assert "".join(streamed(merged, ids)) == "a<think>hello"
    assert "".join(streamed(merged, ids, ("<think>",))) == "a"


@settings(deadline=None)
@given(words=st.lists(st.sampled_from(["<s>", "▁", "▁a", "▁b", "b", ".", "é", EMOJI]), max_size=80))
def test_only_the_first_space_of_a_text_is_stripped(spaces: PreTrainedTokenizerBase, words: list[str]) -> None:
    named = [
        name
        for word in words
        for name in ([word] if word.isascii() or "▁" in word else [f"<0x{byte:02X}>" for byte in word.encode()])
    ]
    ids = spaces.convert_tokens_to_ids(named)
    assert "".join(streamed(spaces, ids)) == spaces.decode(ids, skip_special_tokens=True)


def test_bytes_as_tokens_may_undo_a_character_for_a_while(spaces: PreTrainedTokenizerBase) -> None:
    """Byte fallback decodes a run of bytes to replacement characters until its last character is whole."""
    for silent in range(20):
        ids = spaces.convert_tokens_to_ids(["<s>"] * silent + [f"<0x{byte:02X}>" for byte in EMOJI.encode()] * 20)
        assert streamed(spaces, ids) == [*[""] * silent, *["", "", "", EMOJI] * 20, ""]


def test_a_special_token_is_not_the_beginning_of_a_text(spaces: PreTrainedTokenizerBase) -> None:
    for words in range(60):
        ids = spaces.convert_tokens_to_ids([*["▁a"] * words, "<s>", "▁b"])
        assert "".join(streamed(spaces, ids)) == " ".join("a" * words + "b")


@pytest.mark.parametrize("text", [b"hello, it is 3.14. ", "日本語🎉".encode(), b"\xff", b"\xe6\xf0\x9f"])
def test_a_token_costs_the_same_however_long_the_text_is(bytewise: PreTrainedTokenizerBase, text: bytes) -> None:
    counting = CountingTokenizer(bytewise)
    stream = TextStream(counting, ("END",))  # type: ignore[arg-type]  # all that it asks of a tokenizer
    ids = byte_ids(bytewise, text * 100)
    for token in ids:
        stream.push(token)
    assert max(counting.decoded) <= 33
    assert sum(counting.decoded) < 30 * len(ids)
    assert stream.text + stream.finish() == bytewise.decode(ids)


def test_an_empty_stop_string_is_refused(bytewise: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ConfigError, match="^stop is"):
        TextStream(bytewise, ("a", ""))


def _seconds(tokenizer: PreTrainedTokenizerBase, text: str, stop: str) -> float:
    spent = []
    for _ in range(3):
        begun = time.process_time()
        stream = TextStream(tokenizer, (stop,))
        stream._release(text)
        spent.append(time.process_time() - begun)
    return min(spent)


@pytest.mark.parametrize("unit", ["a", "ab", "aab"])
def test_a_long_stop_string_costs_as_much_as_it_is_long(bytewise: PreTrainedTokenizerBase, unit: str) -> None:
    """Sixteen times the length; work that grows with its square would cost 256 times as much."""

    def seconds(size: int) -> float:
        return _seconds(bytewise, unit * (2 * size // len(unit)), unit * (size // len(unit)) + "!")

    assert seconds(64_000) <= 80 * max(seconds(4_000), 0.0005)


def test_a_long_stop_string_takes_little_memory(bytewise: PreTrainedTokenizerBase) -> None:
    tracemalloc.start()
    try:
        stream = TextStream(bytewise, ("ab" * 20_000,))
        for token in byte_ids(bytewise, "ab" * 200):
            stream.push(token)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000
    assert (stream.text, stream.finish()) == ("", "ab" * 200)
