"""Tokens in, text out, as soon as it is certain.

A character may span tokens and a stop string too, so text is held back until nothing that follows can change it. What
a token means is the tokenizer's business: only a bounded window of the newest tokens is decoded, whatever the answer's
length.
"""

from transformers import PreTrainedTokenizerBase

from memgen.errors import ConfigError

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes an incomplete UTF-8 sequence to."""
_WINDOW = 16
"""Tokens after which the window shrinks as soon as no character is in parts. Half of it holds any UTF-8 sequence."""


class TextStream:
    """The text of one answer, piece by piece.

    The pieces together are `tokenizer.decode(all_ids, skip_special_tokens=True)`, cut before the stop string that was
    complete first (of two that end together, the longer). So the text does not depend on how it came in tokens: with
    the stops "bc" and "abcd", "abcde" becomes "a".

    Two exceptions: spaces are never cleaned up, since that changes text already returned; and after bytes that are no
    UTF-8 a tokenizer with byte fallback (not byte-level BPE) may decode the whole to other replacement characters.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stop: tuple[str, ...] = (), *, least_tokens: int = 0
    ) -> None:
        """
        Args:
            least_tokens: no stop string is looked for in what so many tokens, the first, make certain.

        Raises:
            ConfigError: a stop string is empty.
        """
        if not all(stop):
            raise ConfigError(f"stop is {stop!r}; expected texts that are not empty")
        self._tokenizer = tokenizer
        self._stop = stop
        self._tokens, self._least_tokens = 0, least_tokens
        self._searches = [_Search(text) for text in stop]
        self._window: list[int] = []
        """The newest tokens. Part of their text was returned: the first token of a text may decode differently."""
        self._released = 0
        """Characters of the window's text that were taken from it."""
        self._boundaries = (0, 0)
        """The last two places in the window at which a token with text ended and a character with it."""
        self._held = ""
        """The stop string whose beginning the text ends in, if it ends in one."""
        self._held_length = 0
        """Characters of that beginning: text that is certain, but held back."""
        self._pieces: list[str] = []
        self.stopped = False
        """A stop string appeared; what is pushed from now on is ignored."""
        self.stop_string: str | None = None
        """The one that did."""

    @property
    def text(self) -> str:
        """All text returned so far; after `finish` the whole text."""
        return "".join(self._pieces)

    def push(self, token_id: int) -> str:
        """Take a token; returns the text that has become certain, often ""."""
        self._tokens += 1
        return "" if self.stopped else self._release(self._detokenize(token_id))

    def finish(self) -> str:
        """No token follows: returns what was held back. Once more returns ""."""
        if self.stopped:
            return ""
        rest = self._release(self._decode(self._window)[self._released :])
        self._window, self._released, self._boundaries = [], 0, (0, 0)
        if self.stopped:
            return rest
        held, self._held_length = self._held[: self._held_length], 0
        self._pieces.append(held)
        return rest + held

    def _detokenize(self, token_id: int) -> str:
        """Text that `token_id` makes certain, stop strings aside."""
        self._window.append(token_id)
        text = self._decode(self._window)
        certain = text.rstrip(_REPLACEMENT)
        new = certain[self._released :]
        self._released = max(self._released, len(certain))
        whole = len(certain) == len(text)
        if whole and new:
            self._boundaries = (self._boundaries[1], len(self._window))
        if len(self._window) > 2 * _WINDOW:
            return new + self._give_up_waiting(text)
        if len(self._window) > _WINDOW and whole:
            self._shrink()
        return new

    def _shrink(self) -> None:
        """Drop tokens whose text was returned, all but the last with text: it shows that no text begins here."""
        start, end = self._boundaries
        self._window = self._window[start:]
        self._released = len(self._decode(self._window))
        self._boundaries = (0, end - start)

    def _give_up_waiting(self, text: str) -> str:
        """Only bytes that are no UTF-8, or tokens without text, fill the window. Returns what is certain of its text.

        That is all but the last character, which may be the beginning of a sequence. It is whole among the last
        tokens that have text.
        """
        pending = text.endswith(_REPLACEMENT)
        new = text[self._released : len(text) - pending]
        self._window = [i for i in self._window if self._decode([i, i])][-_WINDOW // 2 :]
        self._released = len(self._decode(self._window)) - pending
        self._boundaries = (0, 0)
        return new

    def _release(self, new: str) -> str:
        """Text behind which no stop string can have begun; the rest is held."""
        if not new:
            return ""
        cut = self._stop_begins(new)
        self.stopped = cut is not None
        longest = max(self._searches, key=lambda search: search.matched, default=None)
        held = 0 if self.stopped or longest is None else longest.matched
        released = self._beginning(new, self._held_length + len(new) - held if cut is None else cut)
        self._held, self._held_length = longest.text if longest else "", held
        self._pieces.append(released)
        return released

    def _stop_begins(self, new: str) -> int | None:
        """Where the first stop string to be complete begins, from the held text's start; None without one."""
        searched = new if self._searches and self._tokens > self._least_tokens else ""
        for number, character in enumerate(searched, start=1):
            found = [search.text for search in self._searches if search.push(character)]
            if found:
                self.stop_string = max(found, key=len)
                return self._held_length + number - len(self.stop_string)
        return None

    def _beginning(self, new: str, length: int) -> str:
        """The first characters of the held text and the new."""
        held = min(self._held_length, length)
        return self._held[:held] + new[: length - held]

    def _decode(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class _Search:
    """One text looked for in characters as they come: Knuth, Morris and Pratt's, linear in both."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0
        """Characters of the longest beginning of the text that what came so far ends in."""
        self._shorter = [0] * len(text)
        """For each beginning, the longest shorter one that it ends in."""
        length = 0
        for place in range(1, len(text)):
            while length and text[place] != text[length]:
                length = self._shorter[length - 1]
            length += text[place] == text[length]
            self._shorter[place] = length

    def push(self, character: str) -> bool:
        """Whether the text is complete with this character. Nothing may follow then."""
        while self.matched and self.text[self.matched] != character:
            self.matched = self._shorter[self.matched - 1]
        self.matched += self.text[self.matched] == character
        return self.matched == len(self.text)
