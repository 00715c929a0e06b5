"""Text that stays text: which tokens of a tokenizer control the model, and how a text never becomes one of them.

A tokenizer finds its control tokens by their spelling, wherever it stands. So a tool's result that holds `<|im_end|>`
would end its turn and could open a system message. A chat template mixes its own control tokens with the texts of
users in one string; the spellings in texts are therefore cut by a mark before rendering, and the rendered string is
tokenized piece by piece between the marks. A conversation without such a spelling is tokenized in one piece.

Control tokens are the tokenizer's special tokens, and those added ones that the template or we write, as `<tool_call>`.
Transformers' own `sanitize_control_tokens` leaves keys of objects as they are, and knows nothing of what is spelled.
"""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from memgen.errors import ChatTemplateError

_SHAPE = re.compile(r"<[|｜].+[|｜]>", re.DOTALL)
"""What nobody writes as text, also where a tokenizer does not call it special."""
_MARKS = [chr(code) for code in (*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE))]
"""Unicode's private characters, which mean nothing."""


_THOUGHT = ("<think>", "</think>")
"""What templates look for in an answer to cut its thought off, also where a tokenizer has no token for it."""
_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", *_THOUGHT)
"""Tokens that mean something where a tokenizer has them, whatever its template writes."""


class ControlTokens:
    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        """`template` is the Jinja text, and whatever it was seen to write: some put their tokens together."""
        self._tokenizer = tokenizer
        added = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
        special = {*tokenizer.all_special_tokens, *(text for text, is_special in added.items() if is_special)}
        written = {
            text
            for text in added
            if text in _TAGS or _SHAPE.fullmatch(text) or (text in template and not text.isalnum())
        }
        written.update(text for text in _THOUGHT if text in template)
        # A spelling of one character can't be cut, and runs of spaces are text.
        self._spellings = sorted(text for text in special | written if len(text) > 1 and not text.isspace())
        # Case is ignored, because a tokenizer may lower it before it looks for its tokens.
        self._start = re.compile(f"(?={_alternatives(self._spellings)})", re.IGNORECASE) if self._spellings else None
        self._whole = re.compile("|".join(map(re.escape, sorted(self._spellings, key=len, reverse=True))) or r"(?!)")

    @property
    def spellings(self) -> tuple[str, ...]:
        return tuple(self._spellings)

    def mark_for(self, *values: Any) -> str:
        """A character to cut spellings with that no text in these JSON values has; "" if nothing is to be cut.

        Raises:
            ChatTemplateError: no such character is left.
        """
        texts = [text for value in values for text in _texts(value)]
        if self._start is None or not any(self._start.search(text) for text in texts):
            return ""
        used: set[str] = set().union(*texts)
        free = next((mark for mark in _MARKS if mark not in used), None)
        if free is None:
            raise ChatTemplateError(
                f"the texts use all {len(_MARKS)} of Unicode's private characters, and spell a control token; leave "
                "one of them out"
            )
        return free

    def cut(self, value: Any, mark: str) -> Any:
        """The JSON value with `mark` behind the first character of each spelling in its texts, keys included."""
        if self._start is None or not mark:
            return value
        if isinstance(value, str):
            return self._cut_text(value, mark)
        if isinstance(value, list | tuple):
            return [self.cut(each, mark) for each in value]
        if isinstance(value, dict):
            return {self.cut(key, mark): self.cut(each, mark) for key, each in value.items()}
        return value

    def ids(self, text: str, mark: str = "", *, begin: bool = False) -> tuple[int, ...]:
        """Token ids of rendered text, whose spellings are control tokens unless `mark` cuts them.

        Args:
            begin: put in front what the tokenizer begins a text with. Chat templates write it themselves.
        """
        first, *others = text.split(mark) if mark else [text]
        ids = list(self._tokenizer(first, add_special_tokens=begin).input_ids)
        for piece in others:
            ids += self._continued_ids(piece)
        return tuple(map(int, ids))

    def text_ids(self, text: str, *, begin: bool = False) -> tuple[int, ...]:
        """Token ids of a text that is nothing but text. Args are those of `ids`."""
        mark = self.mark_for(text)
        return self.ids(self.cut(text, mark), mark, begin=begin)

    def first(self, text: str) -> tuple[int, int] | None:
        """(start, end) of the first control token spelled in a text; None without one."""
        found = self._whole.search(text)
        return found.span() if found else None

    def starts(self, text: str) -> Iterator[int]:
        """Where control tokens are spelled in a text."""
        return (found.start() for found in self._whole.finditer(text))

    def _continued_ids(self, piece: str) -> list[int]:
        """Token ids of a text behind another, without the space that some tokenizers put in front of each text."""
        ids = list(self._tokenizer(piece, add_special_tokens=False).input_ids)
        if not self._begins_with_space:
            return ids
        line = list(self._tokenizer("\n", add_special_tokens=False).input_ids)
        behind = list(self._tokenizer(f"\n{piece}", add_special_tokens=False).input_ids)
        return behind[len(line) :] if behind[: len(line)] == line else ids

    @cached_property
    def _begins_with_space(self) -> bool:
        """As tokenizers in the manner of SentencePiece do."""
        letters = [*self._tokenizer("a", add_special_tokens=False).input_ids] * 2
        return " " in str(self._tokenizer.decode(letters)).strip()

    def _cut_text(self, text: str, mark: str) -> str:
        assert self._start is not None
        places = [found.start() + 1 for found in self._start.finditer(text)]
        if not places:
            return text
        return mark.join(text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _texts(key)
            yield from _texts(each)


def _alternatives(spellings: list[str]) -> str:
    """A pattern that matches where any of the spellings begins; letters in common are looked at once.

    Tokenizers have up to a thousand of them: tried one by one, a text full of `<` would cost a thousand times its size.
    """
    if "" in spellings:
        return ""
    by_first: dict[str, list[str]] = {}
    for spelling in spellings:
        by_first.setdefault(spelling[0], []).append(spelling[1:])
    return f"(?:{'|'.join(re.escape(first) + _alternatives(rest) for first, rest in by_first.items())})"
