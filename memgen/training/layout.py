"""Where tokens, latents and targets stand when a batch of examples is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from memgen.config import MemoryConfig
from memgen.errors import ConfigError
from memgen.text.delimiters import DelimiterMatcher
from memgen.training.entries import Entries, flat_places, stacked
from memgen.training.examples import Example

NO_TARGET = -1


@dataclass(frozen=True)
class Layout:
    """What the reasoner reads behind the prompts without their last token, right-padded.

    Form `lora` reads the prompts too, behind nothing.
    """

    ids: Tensor
    """`(B, N)`, 0 where a latent or padding stands."""
    targets: Tensor
    """`(B, N)`, the token to be predicted there, or `NO_TARGET`."""
    present: Tensor
    """`(B, N)` bool, false where there is only padding."""
    reread: Tensor
    """Flat indices into `B * N` of prompt tokens that the weaver reads again."""
    prompt_latents: Tensor
    """Flat indices into `B * N` of the latents woven at prompt ends, `(B * K,)`; empty without memory."""
    inference_latents: Tensor
    """Flat indices of those woven inside answers, row by row."""
    insertions: tuple[tuple[int, ...], ...]
    """For each example, how many target tokens stand in front of each insertion, rising; 0 is the prompt's end."""

    @property
    def adapted(self) -> Tensor:
        """Flat indices of everything that the weaver reads or writes with its LoRA on, form `cache`."""
        return torch.cat([self.reread, self.prompt_latents, self.inference_latents])


def insertion_points(example: Example, config: MemoryConfig, matcher: DelimiterMatcher) -> tuple[int, ...]:
    """Target tokens of `example` that are decision points in generation, the first `max_insertions` of them."""
    if not config.max_insertions:
        return ()
    start = len(example.prompt_ids)
    found = matcher.insertion_points([*example.prompt_ids, *example.target_ids], start, config.max_insertions)
    return tuple(index - start for index in found)


def insertions_of(example: Example, config: MemoryConfig, matcher: DelimiterMatcher) -> tuple[int, ...]:
    """The example's own insertions, else one at the prompt's end and those at its insertion points.

    Raises:
        ConfigError: the example names one at which nothing is left to predict.
    """
    if config.form == "lora":
        return ()
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
    weaves behind it, and the last latent predicts the next. Form `lora` weaves nothing, and reads the prompts too.
    """
    insertions = [insertions_of(e, config, matcher) if config and matcher else () for e in examples]
    rows = [_row(example, config, set(some)) for example, some in zip(examples, insertions, strict=True)]
    entries = [row for row, _ in rows]
    ids, present = stacked(entries, device)
    targets = torch.full(ids.shape, NO_TARGET, dtype=torch.long)
    for number, (example, (_, predicting)) in enumerate(zip(examples, rows, strict=True)):
        targets[number, predicting] = torch.tensor(example.target_ids)
    places = partial(flat_places, width=ids.shape[1], device=device)
    return Layout(
        ids=ids,
        targets=targets.to(device),
        present=present,
        reread=places([row.reread for row in entries]),
        prompt_latents=places([row.prompt_latents for row in entries]),
        inference_latents=places([row.inference_latents for row in entries]),
        insertions=tuple(insertions),
    )


def _row(example: Example, config: MemoryConfig | None, insertions: set[int]) -> tuple[Entries, list[int]]:
    """(what stands behind the prefix, for each target token the place of what predicts it)."""
    entries, predicting = Entries(), []
    if config is not None and config.form == "lora":
        entries.ids.extend(example.prompt_ids[:-1])
    for number, token in enumerate([example.prompt_ids[-1], *example.target_ids[:-1]]):
        entries.read(token, config if number in insertions else None, None if number else example.prompt_ids)
        predicting.append(len(entries.ids) - 1)
    return entries, predicting
