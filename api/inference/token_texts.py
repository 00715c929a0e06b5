"""Which bytes of a text a token stands for. Knows tokenizers; no model, no request.

A token may be a part of a character, so bytes are what can be put together again, and text only shows a token.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from transformers import PreTrainedTokenizerBase

from memgen.generation.requests import Generation

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
"""How SentencePiece names a token of one byte."""


@dataclass(frozen=True)
class TokenText:
    text: str
    """For people: a special token's name, and a replacement character for a part of one."""
    raw: tuple[int, ...] | None
    """UTF-8 bytes; None for a special token, which is no part of the text, and where they are unknown."""


def token_texts(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> tuple[TokenText, ...]:
    """What each token adds to a text that it does not begin."""
    special = frozenset(tokenizer.all_special_ids)
    return tuple(_token_text(tokenizer, token_id, token_id in special) for token_id in token_ids)


def reported_texts(
    tokenizer: PreTrainedTokenizerBase, generation: Generation
) -> tuple[tuple[TokenText, ...], tuple[tuple[TokenText, ...], ...]]:
    """(of its tokens, of the alternatives at each place), each token's text made once."""
    places = generation.alternatives or ()
    ids = {*generation.token_ids, *(each.token for place in places for each in place)}
    known = dict(zip(ids, token_texts(tokenizer, tuple(ids)), strict=True))
    alternatives = tuple(tuple(known[each.token] for each in place) for place in places)
    return tuple(known[token] for token in generation.token_ids), alternatives


def _token_text(tokenizer: PreTrainedTokenizerBase, token_id: int, special: bool) -> TokenText:
    name = str(tokenizer.convert_ids_to_tokens(token_id))
    if special:
        return TokenText(name, None)
    alone, twice = (
        str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)) for ids in ([token_id], [token_id, token_id])
    )
    # Behind itself, because some tokenizers strip a space off the first token of a text.
    text = twice[len(alone) :]
    if _REPLACEMENT not in twice:
        return TokenText(text, tuple(text.encode()))
    raw = _bytes_of_name(name)
    return TokenText(raw.decode(errors="replace") if raw else text, tuple(raw) if raw else None)


def _bytes_of_name(name: str) -> bytes | None:
    if match := _BYTE_TOKEN.fullmatch(name):
        return bytes([int(match[1], 16)])
    return bytes(_BYTES[letter] for letter in name) if all(letter in _BYTES for letter in name) else None


def _letters_of_bytes() -> dict[str, int]:
    """The byte for each letter that byte-level BPE writes: printable ones as themselves, the others from 256 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    substitutes = count(256)
    return {chr(byte if byte in printable else next(substitutes)): byte for byte in range(256)}


_BYTES = _letters_of_bytes()
