"""The bytes of tokens put together are the text's, whatever kind of tokenizer cut it."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from api.inference.token_texts import TokenText, token_texts
from tests.memgen.tokenizer_samples import byte_ids, byte_tokenizer, merged_tokenizer, spaces_tokenizer


def named(tokenizer: PreTrainedTokenizerBase, *names: str) -> tuple[TokenText, ...]:
    return token_texts(tokenizer, tokenizer.convert_tokens_to_ids(list(names)))


def test_parts_of_characters_are_bytes(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(tmp_path)
    text = "a é 日\n🦉\x80"
    tokens = token_texts(tokenizer, byte_ids(tokenizer, text))
    assert [token.raw for token in tokens] == [(byte,) for byte in text.encode()]
    assert [token.text for token in tokens[:4]] == ["a", " ", "\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}"]


def test_special_tokens_are_named_and_no_part_of_the_text(tmp_path: Path) -> None:
    assert named(byte_tokenizer(tmp_path), "<|im_start|>") == (TokenText("<|im_start|>", None),)
    assert named(merged_tokenizer(), "<|im_end|>", "<think>") == (
        TokenText("<|im_end|>", None),
        TokenText("<think>", tuple(b"<think>")),
    )


@pytest.mark.parametrize("piece", [b" the", b"\xa9\xe6", b"\xa5.", b"x\xf0\x9f", "日".encode(), b"hello"])
def test_tokens_that_cut_through_characters(piece: bytes) -> None:
    tokenizer = merged_tokenizer()
    name = "".join(str(tokenizer.convert_ids_to_tokens(token_id)) for token_id in byte_ids(tokenizer, piece))
    assert tokenizer.convert_tokens_to_ids(name) not in (None, tokenizer.unk_token_id)
    assert named(tokenizer, name) == (TokenText(piece.decode(errors="replace"), tuple(piece)),)


def test_spaces_and_byte_tokens_of_sentencepiece() -> None:
    tokens = named(spaces_tokenizer(), "▁a", "b", "<0xE6>", "<0x41>", "▁", "<s>")
    assert [token.raw for token in tokens] == [(32, 97), (98,), (0xE6,), (0x41,), (32,), None]
    assert [token.text for token in tokens] == [" a", "b", "\N{REPLACEMENT CHARACTER}", "A", " ", "<s>"]
