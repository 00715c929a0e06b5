"""Where tokens, latents and targets stand when a batch of examples is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memgen.config import MemoryConfig
from memgen.delimiters import DelimiterMatcher
from memgen.errors import ConfigError
from memgen.training.examples import Example

NO_TARGET = -1


@dataclass(frozen=True)
class Layout:
    """What the reasoner reads behind the prompts without their last token, right-padded."""

    ids: Tensor
    """`(B, N)`, 0 where a latent or padding stands."""
    targets: Tensor
    """`(B, N)`, the token to be predicted there, or `NO_TARGET`."""
    present: Tensor
    """`(B, N)` bool, false where there is only padding."""
    prompt_latents: Tensor
    """Flat indices into `B * N` of the latents woven at prompt ends, `(B * K,)`; empty without memory."""
    inference_latents: Tensor
    """The same of those woven inside answers, row by row."""
    insertions: tuple[tuple[int, ...], ...]
    """For each example, how many target tokens stand in front of each insertion, rising; 0 is the prompt's end."""


def insertion_points(example: Example, config: MemoryConfig, matcher: DelimiterMatcher) -> tuple[int, ...]:
    """Target tokens of `example` that are decision points in generation, the first `max_insertions` of them."""
    if not config.max_insertions:
        return ()
    start = len(example.prompt_ids)
    found = matcher.insertion_points([*example.prompt_ids, *example.target_ids], start, config.max_insertions)
    return tuple(index - start for index in found)


def insertions_of(example: Example, config: MemoryConfig, matcher: DelimiterMatcher) -> tuple[int, ...]:
    """Those that the example says, else one at the prompt's end and those at its insertion points.

    Raises:
        ConfigError: the example names one at which nothing is left to predict.
    """
    if example.insertions is None:
        return (0, *(point + 1 for point in insertion_points(example, config, matcher)))
    outside = [count for count in example.insertions if not 0 <= count < len(example.target_ids)]
    if outside:
        raise ConfigError(f"insertions at {outside}; an answer of {len(example.target_ids)} tokens has room from 0 on")
    return tuple(sorted(example.insertions))


def lay_out(
    examples: Sequence[Example], config: MemoryConfig | None, matcher: DelimiterMatcher | None, device: torch.device
) -> Layout:
    """Place a batch for the memory form of `config`; None is the bare base.

    Form `cache` weaves in front of the token at a decision point, and that token predicts the next. Form `embedding`
    weaves behind it, and the last latent predicts the next.
    """
    insertions = [insertions_of(e, config, matcher) if config and matcher else () for e in examples]
    rows = [_row(example, config, set(some)) for example, some in zip(examples, insertions, strict=True)]
    width = max(len(ids) for ids, _, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full((len(rows), width), NO_TARGET, dtype=torch.long)
    present = torch.zeros(len(rows), width, dtype=torch.bool)
    at_prompt: list[int] = []
    inside: list[int] = []
    for number, (row_ids, row_targets, latents) in enumerate(rows):
        ids[number, : len(row_ids)] = torch.tensor(row_ids)
        targets[number, : len(row_targets)] = torch.tensor(row_targets)
        present[number, : len(row_ids)] = True
        for place, is_prompt in latents:
            (at_prompt if is_prompt else inside).append(number * width + place)
    return Layout(
        ids.to(device),
        targets.to(device),
        present.to(device),
        torch.tensor(at_prompt, dtype=torch.long, device=device),
        torch.tensor(inside, dtype=torch.long, device=device),
        tuple(insertions),
    )


def _row(
    example: Example, config: MemoryConfig | None, insertions: set[int]
) -> tuple[list[int], list[int], list[tuple[int, bool]]]:
    """(ids, targets, [(place of a latent, whether at the prompt's end)]) of one example."""
    ids: list[int] = []
    targets: list[int] = []
    latents: list[tuple[int, bool]] = []
    read = [example.prompt_ids[-1], *example.target_ids[:-1]]
    for number, (token, target) in enumerate(zip(read, example.target_ids, strict=True)):
        at_prompt = number == 0
        weaves = number in insertions
        count = (config.latents if at_prompt else config.inference_latents) if config and weaves else 0
        before = count and config is not None and config.form == "cache"
        if not before:
            ids.append(token)
            targets.append(NO_TARGET)
        latents.extend((len(ids) + n, at_prompt) for n in range(count))
        ids.extend([0] * count)
        targets.extend([NO_TARGET] * count)
        if before:
            ids.append(token)
            targets.append(NO_TARGET)
        targets[-1] = target
    return ids, targets, latents
