"""Where sentences end: behind which tokens memory may be woven.

One rule for generating and for placing insertions in training targets. It looks at a token and a few before it, never
ahead, since ahead does not exist yet while generating.
"""

from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from itertools import islice
from typing import Protocol, Self

from memgen.errors import ConfigError

_NUMBER_MARKS = (".", ",")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes an incomplete UTF-8 sequence to."""
_UTF8_BYTES = 4
"""The longest UTF-8 sequence of one character."""


class DecodesTokens(Protocol):
    """What the matcher needs of a tokenizer: those of transformers have it, and vLLM's."""

    def decode(
        self, token_ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool
    ) -> object: ...


class _Token(Enum):
    """What is known of a token alone."""

    NEVER = "no delimiter's last character at its end"
    ALWAYS = "ends in a delimiter whatever stands before it"
    DEPENDS = "on the tokens before it"
    SILENT = "has no text: a special token, or an id without token"


class DelimiterMatcher:
    """Tells whether a text, given as tokens, ends in a delimiter.

    A delimiter may be several characters and span tokens. Special tokens never end a sentence, and what stands before
    one is not looked at: a line break behind `<|im_end|>` is not the second of two.

    A `.` or `,` directly behind a decimal digit does not count. While generating, it is unknown whether "3." goes on
    "14" or ends a sentence, and a list of prices would spend the whole budget of insertions. The price is that
    "The answer is 42." is no sentence end at its point; a line break behind it is one.

    With the delimiters `.` `,` and line break (here ⏎) and a token per character, | marks the ends:
    `Yes,| 1,000 or 3.14.⏎| 2. No.|`. Where `."` is one token, the point in it is no end: no token ends there.

    What is known of a token alone is kept, so that nearly all tokens cost one dictionary look-up.
    """

    def __init__(self, tokenizer: DecodesTokens, delimiters: tuple[str, ...]) -> None:
        """Raises ConfigError if a delimiter is empty."""
        if not all(delimiters):
            raise ConfigError(f"delimiters are {delimiters!r}; expected texts that are not empty")
        self._tokenizer = tokenizer
        self._delimiters = delimiters
        self._context_free = tuple(d for d in delimiters if d not in _NUMBER_MARKS)
        self._last_characters = {d[-1] for d in delimiters}
        if not all(map(str.isascii, self._last_characters)):
            self._last_characters.add(_REPLACEMENT)
        self._longest = max(map(len, delimiters), default=0)
        # A token with text holds a byte or more, so this many hold any delimiter and the character before it.
        self._reach = max((len(d.encode()) for d in delimiters), default=0) + _UTF8_BYTES
        self._known: dict[int, _Token] = {}

    @classmethod
    @lru_cache(maxsize=32)
    def of(cls, tokenizer: DecodesTokens, delimiters: tuple[str, ...]) -> Self:
        """The matcher for this tokenizer (the object) and these delimiters, shared so that what it learnt is kept."""
        return cls(tokenizer, delimiters)

    @property
    def reach(self) -> int:
        """How many tokens, the last among them, `ends_sentence` looks at, at most."""
        return max(self._reach, 1)

    def ends_sentence(self, token_ids: Sequence[int], index: int) -> bool:
        """Whether the text of `token_ids` up to and including `index` (0-based) ends in a delimiter.

        Tokens behind `index` are not looked at.
        """
        alone = self._alone(token_ids[index])
        if alone is _Token.DEPENDS:
            return self._ends_in_delimiter(self._tail(token_ids, index))
        return alone is _Token.ALWAYS

    def insertion_points(self, token_ids: Sequence[int], start: int, limit: int) -> list[int]:
        """The first `limit` indices from `start` on that end a sentence, without the last token of all.

        These are the points at which generating the tokens from `start` on would ask for memory: behind the last
        token nothing more is generated.
        """
        ends = (index for index in range(start, len(token_ids) - 1) if self.ends_sentence(token_ids, index))
        return list(islice(ends, limit))

    def _alone(self, token_id: int) -> _Token:
        known = self._known.get(token_id)
        if known is None:
            known = self._known[token_id] = self._judge(self._text_of(token_id))
        return known

    def _judge(self, text: str) -> _Token:
        if not text:
            return _Token.SILENT
        if text.endswith(self._context_free):
            return _Token.ALWAYS
        if text[-1] not in self._last_characters:
            return _Token.NEVER
        if len(text) <= self._longest or _REPLACEMENT in text:
            return _Token.DEPENDS
        return _Token.ALWAYS if self._ends_in_delimiter(text) else _Token.NEVER

    def _ends_in_delimiter(self, text: str) -> bool:
        if text.endswith(self._context_free):
            return True
        return text.endswith(self._delimiters) and not text[-2:-1].isdecimal()

    def _text_of(self, token_id: int) -> str:
        # Behind itself, because some tokenizers strip a space off the first token of a text.
        return self._decode([token_id, token_id])[len(self._decode([token_id])) :]

    def _tail(self, token_ids: Sequence[int], index: int) -> str:
        """The last `_reach` tokens up to `index` as text, back to the last special token at most."""
        start = index
        first = max(0, index + 1 - self._reach)
        while start > first and self._alone(token_ids[start - 1]) is not _Token.SILENT:
            start -= 1
        return self._decode(token_ids[start : index + 1])

    def _decode(self, token_ids: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )
