"""The supervised turns of a conversation, in tokens: what a training learns from, and what it leaves out.

A turn's prompt is everything before it, exactly as the engine would read it when serving. Turns with `weight` 0 are
context only. Every prompt is rendered anew, so none is rendered that is known to be too long: a conversation of many
turns would cost the square of its length for nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from memgen.errors import ChatTemplateError
from memgen.text.profile import BaseProfile

MOST_LEFT_OUT = 0.2
"""Share of the supervised turns that may be too long before a training is flagged."""


@dataclass(frozen=True)
class SupervisedTurn:
    ordinal: int
    """Which of the conversation's assistant turns it is, from 0, those of weight 0 counted."""
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    """With the end-of-turn token."""


@dataclass
class LeftOut:
    """How many turns are not learned from, and why."""

    max_tokens: int
    """Longest prompt and answer together."""
    long: int = 0
    weight: int = 0
    refused: int = 0
    """Turns whose conversation the base's chat template refuses."""

    def flags(self, kept: int) -> tuple[str, ...]:
        """A sign that a training on `kept` turns did not learn most of its data; none if few turns were left out.

        2 of 10 turns pass, 3 of 10 do not.
        """
        lost = self.long + self.refused
        return (self.in_words(kept),) if lost > MOST_LEFT_OUT * (lost + kept) else ()

    def in_words(self, kept: int) -> str:
        """What was too long or refused, beside `kept` turns that were not; empty if nothing was."""
        of, reasons = self.long + self.refused + kept, []
        if self.long:
            reasons.append(
                f"{self.long} of {of} turns were not learned: with their prompts they are longer than "
                f"{self.max_tokens} tokens. Raise max_example_tokens if the model has room for more, or send shorter "
                "conversations"
            )
        if self.refused:
            reasons.append(f"{self.refused} of {of} turns were not learned: the base's chat template refuses them")
        return ". ".join(reasons)


def supervised_turns(
    profile: BaseProfile,
    messages: Sequence[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    left_out: LeftOut,
) -> Iterator[SupervisedTurn]:
    """The turns to learn from that the template takes and that are not too long; others are counted in `left_out`."""
    ordinal, too_long = -1, False
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        ordinal += 1
        if message.get("weight", 1) == 0:
            left_out.weight += 1
        elif too_long:
            left_out.long += 1
        else:
            try:
                prompt, answer = profile.turn_ids(messages[: number + 1], tools)
            except ChatTemplateError:  # one conversation's trouble is never the training's
                left_out.refused += 1
                continue
            if len(prompt) + len(answer) <= left_out.max_tokens:
                yield SupervisedTurn(ordinal, prompt, answer)
                continue
            left_out.long += 1
            too_long = len(prompt) >= left_out.max_tokens  # later prompts are longer still
