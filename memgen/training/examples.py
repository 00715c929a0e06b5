"""From trajectories to training examples: one example for each supervised assistant turn.

A turn's prompt is everything before it, exactly as the engine would read it when serving, so memory is woven at the
same place in training and in use. Turns with `weight` 0 are context only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from memgen.chat import render_answer


@dataclass(frozen=True)
class Example:
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    """The answer with its end-of-turn token: the supervised tokens."""

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) + len(self.target_ids)


@dataclass(frozen=True)
class ExampleSet:
    examples: tuple[Example, ...]
    skipped_long: int
    """Turns longer than the limit, not trained on."""
    skipped_weight: int
    """Turns that the trajectory marks with weight 0."""


def tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Token ids of rendered chat text, whose special tokens are already in it."""
    return tuple(int(i) for i in tokenizer(text, add_special_tokens=False).input_ids)


def build_examples(
    tokenizer: PreTrainedTokenizerBase, trajectories: Sequence[dict[str, Any]], *, max_tokens: int
) -> ExampleSet:
    """Examples of trajectories `{"messages": [...], "tools": [...] | None}`.

    Raises:
        ChatTemplateError: the model's template refuses a conversation.
    """
    examples: list[Example] = []
    skipped_long = skipped_weight = 0
    for trajectory in trajectories:
        messages, tools = trajectory["messages"], trajectory.get("tools")
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            if message.get("weight", 1) == 0:
                skipped_weight += 1
                continue
            prompt, answer = render_answer(tokenizer, messages[: number + 1], tools)
            example = Example(tokenize(tokenizer, prompt), tokenize(tokenizer, answer))
            if example.tokens > max_tokens:
                skipped_long += 1
            else:
                examples.append(example)
    return ExampleSet(tuple(examples), skipped_long, skipped_weight)
