"""Sentence ends in tokens, against the rule said on whole texts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from memgen.errors import ConfigError
from memgen.text.delimiters import DelimiterMatcher
from tests.memgen.tokenizer_samples import (
    CountingTokenizer,
    byte_ids,
    byte_tokenizer,
    merged_tokenizer,
    spaces_tokenizer,
)

DEFAULT = (",", ".", "\n")
VARIETY = [DEFAULT, ("\n",), (".", "</step>", "\n\n"), ("。", "é", "aé"), (" ", " ."), ("1.", "\n.", "...")]


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return byte_tokenizer(tmp_path_factory.mktemp("bytes"))


@pytest.fixture(scope="module")
def merged() -> PreTrainedTokenizerBase:
    return merged_tokenizer()


def marked(tokenizer: PreTrainedTokenizerBase, ids: list[int], delimiters: tuple[str, ...] = DEFAULT) -> str:
    """The text with `|` behind each token that ends a sentence."""
    matcher = DelimiterMatcher(tokenizer, delimiters)
    return "".join(tokenizer.decode([i]) + "|" * matcher.ends_sentence(ids, n) for n, i in enumerate(ids))


def ends_by_the_rule(tokenizer: PreTrainedTokenizerBase, ids: list[int], delimiters: tuple[str, ...]) -> bool:
    """The rule, said on the text behind the last special token."""
    silent = [n for n, i in enumerate(ids) if not tokenizer.decode([i], skip_special_tokens=True)]
    text = tokenizer.decode(ids[silent[-1] + 1 :] if silent else ids)
    return any(
        text.endswith(d) and not (d in (".", ",") and len(text) > 1 and text[-2].isdecimal()) for d in delimiters
    )


def ids_of(tokenizer: PreTrainedTokenizerBase) -> st.SearchStrategy[list[int]]:
    pieces = st.lists(
        st.sampled_from(["\n", ".", ",", "3", "٣", "a", "é", "日", "。", "</step>", " ", "1,000.5"]).map(
            lambda text: byte_ids(tokenizer, text)
        )
        | st.integers(0, len(tokenizer) - 1).map(lambda i: [i]),
        max_size=20,
    )
    return pieces.map(lambda lists: [i for part in lists for i in part])


@settings(deadline=None)
@given(data=st.data(), delimiters=st.sampled_from(VARIETY))
def test_it_is_the_rule_on_the_whole_text(
    bytewise: PreTrainedTokenizerBase,
    merged: PreTrainedTokenizerBase,
    data: st.DataObject,
    delimiters: tuple[str, ...],
) -> None:
    tokenizer = data.draw(st.sampled_from([bytewise, merged]))
    ids = data.draw(ids_of(tokenizer))
    matcher = DelimiterMatcher(tokenizer, delimiters)
    for index in range(len(ids)):
        expected = ends_by_the_rule(tokenizer, ids[: index + 1], delimiters)
        assert matcher.ends_sentence(ids, index) is expected, (ids[: index + 1], tokenizer.decode(ids[: index + 1]))


@settings(deadline=None)
@given(data=st.data(), delimiters=st.sampled_from(VARIETY), limit=st.integers(0, 4))
def test_training_has_the_insertion_points_of_generating(
    merged: PreTrainedTokenizerBase, data: st.DataObject, delimiters: tuple[str, ...], limit: int
) -> None:
    prompt, targets = data.draw(ids_of(merged)), data.draw(ids_of(merged))
    matcher = DelimiterMatcher(merged, delimiters)
    context, while_generating = list(prompt), []
    for token in targets:
        # The newest token of the context is about to be followed by another: this is when memory may be woven.
        newest = len(context) - 1
        if len(context) > len(prompt) and len(while_generating) < limit and matcher.ends_sentence(context, newest):
            while_generating.append(newest)
        context.append(token)
    assert matcher.insertion_points([*prompt, *targets], len(prompt), limit) == while_generating


def test_a_number_spends_no_budget(bytewise: PreTrainedTokenizerBase) -> None:
    text = "Yes, 1,000 or 3.14.\n2. No."
    assert marked(bytewise, byte_ids(bytewise, text)) == "Yes,| 1,000 or 3.14.\n|2. No.|"


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        (".", True),
        ("a.", True),
        ("3.", False),
        ("3,", False),
        ("3 .", True),
        ("٣.", False),
        ("𝟗,", False),
        ("x².", True),
        ("3\n", True),
        ("3..", True),
        ("42", False),
        ("a. ", False),
    ],
)
def test_points_behind_digits_do_not_count(bytewise: PreTrainedTokenizerBase, text: str, ends: bool) -> None:
    ids = byte_ids(bytewise, text)
    assert DelimiterMatcher(bytewise, DEFAULT).ends_sentence(ids, len(ids) - 1) is ends


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["hello", "Ġ,", "Ġthe"], "hello ,| the"),
        (["42", ".", "1."], "42.1."),
        (["42", ".Ċ"], "42.\n|"),
        (["hello", '.",', "42", '.",'], 'hello.",|42.",|'),
        (["hello", "<|im_end|>", ".", "42", "<|im_end|>", "."], "hello<|im_end|>.|42<|im_end|>.|"),
    ],
)
def test_tokens_of_several_characters(merged: PreTrainedTokenizerBase, names: list[str], expected: str) -> None:
    assert marked(merged, merged.convert_tokens_to_ids(names)) == expected


@pytest.mark.parametrize(
    ("names", "delimiters", "expected"),
    [
        (["a", "Ċ", "Ċ", "Ċ"], ("\n\n",), "a\n\n|\n|"),
        (["a", "ĊĊ", "a"], ("\n\n",), "a\n\n|a"),
        (["Ċ", "<|im_end|>", "Ċ"], ("\n\n",), "\n<|im_end|>\n"),
        (["</step", ">", "a", ">"], ("</step>",), "</step>|a>"),
    ],
)
def test_delimiters_that_span_tokens(
    merged: PreTrainedTokenizerBase, names: list[str], delimiters: tuple[str, ...], expected: str
) -> None:
    assert marked(merged, merged.convert_tokens_to_ids(names), delimiters) == expected


def test_characters_in_parts(merged: PreTrainedTokenizerBase) -> None:
    """Of "å." and the digit "٥." the last token is the same; so is that of "。" and of what is no character."""
    matcher = DelimiterMatcher(merged, (".", "。"))
    point = merged.convert_tokens_to_ids("¥.")
    for first, ends in [(b"\xc3", True), (b"\xd9", False)]:
        assert matcher.ends_sentence([*byte_ids(merged, first), point], 1) is ends
    ids = byte_ids(merged, "。".encode() + b"\x82")
    assert [matcher.ends_sentence(ids, n) for n in range(4)] == [False, False, True, False]


def test_special_tokens_and_unknown_ids_never_count(bytewise: PreTrainedTokenizerBase) -> None:
    matcher = DelimiterMatcher(bytewise, (">", "\n"))
    ids = [*byte_ids(bytewise, "\n"), bytewise.eos_token_id, 10_000]
    assert [matcher.ends_sentence(ids, n) for n in range(3)] == [True, False, False]


def test_a_tokenizer_that_strips_the_first_space() -> None:
    tokenizer = spaces_tokenizer()
    ids = tokenizer.convert_tokens_to_ids(["▁a", ".", "3", ".", "▁.", "▁", *["<0xE6>"] * 9, "<0x0A>", "▁"])
    assert [n for n in range(len(ids)) if DelimiterMatcher(tokenizer, DEFAULT).ends_sentence(ids, n)] == [1, 4, 15]
    assert [n for n in range(len(ids)) if DelimiterMatcher(tokenizer, (" ",)).ends_sentence(ids, n)] == [5, 16]


def test_later_tokens_are_not_looked_at(bytewise: PreTrainedTokenizerBase) -> None:
    matcher = DelimiterMatcher(bytewise, DEFAULT)
    for rest in ("14", " Then", ""):
        assert not matcher.ends_sentence(byte_ids(bytewise, "3." + rest), 1)
        assert matcher.ends_sentence(byte_ids(bytewise, "a." + rest), 1)


def test_insertion_points_are_limited_and_spare_the_last_token(bytewise: PreTrainedTokenizerBase) -> None:
    matcher = DelimiterMatcher(bytewise, DEFAULT)
    ids = byte_ids(bytewise, "a.b.c.d.")
    assert matcher.insertion_points(ids, 2, 9) == [3, 5]
    assert matcher.insertion_points(ids, 2, 1) == [3]
    assert matcher.insertion_points(ids, 3, 0) == []
    assert DelimiterMatcher(bytewise, ()).insertion_points(ids, 0, 9) == []


def test_a_token_is_decoded_once_and_a_doubtful_one_with_few_before_it(bytewise: PreTrainedTokenizerBase) -> None:
    counting = CountingTokenizer(bytewise)
    matcher = DelimiterMatcher(counting, DEFAULT)  # type: ignore[arg-type]  # all that it asks of a tokenizer
    ids = byte_ids(bytewise, "three lines\n" * 20)
    first = matcher.insertion_points(ids, 0, 99)
    known = len(counting.decoded)
    assert known == 2 * len(set(ids))
    assert matcher.insertion_points(ids, 0, 99) == first
    assert len(counting.decoded) == known
    assert not matcher.ends_sentence(byte_ids(bytewise, "0" * 500 + "."), 500)
    assert max(counting.decoded) <= 5


def test_a_matcher_is_shared(bytewise: PreTrainedTokenizerBase, merged: PreTrainedTokenizerBase) -> None:
    matcher = DelimiterMatcher.of(bytewise, DEFAULT)
    assert matcher is DelimiterMatcher.of(bytewise, DEFAULT)
    assert matcher is not DelimiterMatcher.of(bytewise, ("\n",))
    assert matcher is not DelimiterMatcher.of(merged, DEFAULT)


def test_an_empty_delimiter_is_refused(bytewise: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ConfigError, match="expected texts that are not empty"):
        DelimiterMatcher(bytewise, (".", ""))
