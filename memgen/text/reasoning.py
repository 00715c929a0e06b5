"""Thoughts in front of an answer, `<think>...</think>`: split off a whole text, or off its pieces as they come.

A prompt may end inside of a thought, as those of R1's distills and QwQ; then the text goes on with it, without an
opening. Linear in the text's length, whatever the text.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

REASONING_OPENING, REASONING_END = "<think>", "</think>"
_PROMPT_END_TOKENS = 16
"""Tokens that hold an opening and the white space behind it, also where each is a byte."""


def opens_reasoning(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int]) -> bool:
    """Whether the answer goes on inside of a thought that the prompt has opened."""
    return str(tokenizer.decode(list(prompt_ids[-_PROMPT_END_TOKENS:]))).rstrip().endswith(REASONING_OPENING)


def split_reasoning(text: str, *, opened: bool = False, cut: bool = False) -> tuple[tuple[str, ...], str]:
    """Thoughts at the text's beginning, and the rest; without thoughts the text as it is.

    Args:
        opened: the prompt has opened a thought. If it never ends, the text is an answer, since nothing else was said.
        cut: the text ends where its token limit was. A thought of the prompt that does not end is one then.
    """
    thoughts: list[str] = []
    start = 0
    while True:
        begin = _skip_space(text, start)
        if text.startswith(REASONING_OPENING, begin):
            begin, opened = begin + len(REASONING_OPENING), False
        elif not opened:
            return tuple(filter(None, thoughts)), text[begin:] if thoughts else text
        end = text.find(REASONING_END, begin)
        if end < 0:
            return ((), text) if opened and not cut else (tuple(filter(None, [*thoughts, text[begin:].strip()])), "")
        thoughts.append(text[begin:end].strip())
        start, opened = end + len(REASONING_END), False


def joined_thoughts(thoughts: Sequence[str]) -> str | None:
    return "\n".join(thoughts) or None


class ReasoningStream:
    """Tells an answer's pieces apart as `split_reasoning` does its whole text.

    What it returns are beginnings of the joined thoughts and of the rest; what it holds back at the end is for who
    has read the whole to add. Only where a thought of the prompt never ends, the whole may turn out to be an answer.
    """

    def __init__(self, *, opened: bool) -> None:
        self._inside, self._opened = opened, opened
        self._answers = False
        """The answer has begun, no thought can follow."""
        self._held = ""
        self._thoughts = 0
        """Thoughts that have ended, the empty ones too."""
        self._released = self._releasing = False
        """Whether text of an earlier thought, and of this one, was returned."""

    def push(self, text: str) -> tuple[str, str]:
        """(reasoning, content) that have become certain."""
        if self._answers:
            return "", text
        self._held += text
        reasoning = ""
        while True:
            begun = self._held.lstrip()
            if self._inside and not self._opened:
                end = self._held.find(REASONING_END)
                if end < 0:
                    return reasoning + self._release(*_certain(self._held)), ""
                reasoning += self._release(self._held[:end].rstrip(), self._held[end + len(REASONING_END) :])
                self._released, self._releasing, self._inside = self._released or self._releasing, False, False
                self._thoughts += 1
            elif REASONING_OPENING.startswith(begun[: len(REASONING_OPENING)]) and len(begun) < len(REASONING_OPENING):
                return reasoning, ""
            elif begun.startswith(REASONING_OPENING):
                self._held, self._inside, self._opened = begun[len(REASONING_OPENING) :], True, False
            elif self._opened:
                self._opened = False
            else:
                self._answers, content, self._held = True, begun if self._thoughts else self._held, ""
                return reasoning, content

    def _release(self, thought: str, held: str) -> str:
        self._held = held
        if not self._releasing:
            thought = thought.lstrip()
            if not thought:
                return ""
            self._releasing = True
            return f"\n{thought}" if self._released else thought
        return thought


def _certain(thought: str) -> tuple[str, str]:
    """What belongs to the thought whatever follows, and the rest: white space and the beginning of an end."""
    tail = next((n for n in range(len(REASONING_END) - 1, 0, -1) if thought.endswith(REASONING_END[:n])), 0)
    certain = thought[: len(thought) - tail].rstrip()
    return certain, thought[len(certain) :]


def _skip_space(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start
