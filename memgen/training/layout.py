"""Where tokens, latents and targets stand when a batch of examples is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

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
    reread: Tensor
    """Flat indices into `B * N` of prompt tokens that the weaver reads again."""
    prompt_latents: Tensor
    """Flat indices into `B * N` of the latents woven at prompt ends, `(B * K,)`; empty without memory."""
    inference_latents: Tensor
    """The same of those woven inside answers, row by row."""
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
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full((len(rows), width), NO_TARGET, dtype=torch.long)
    present = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        targets[number, : len(row.targets)] = torch.tensor(row.targets)
        present[number, : len(row.ids)] = True
    return Layout(
        ids=ids.to(device),
        targets=targets.to(device),
        present=present.to(device),
        reread=_flat([row.reread for row in rows], width, device),
        prompt_latents=_flat([row.at_prompt for row in rows], width, device),
        inference_latents=_flat([row.inside for row in rows], width, device),
        insertions=tuple(insertions),
    )


def _flat(places: Sequence[Sequence[int]], width: int, device: torch.device) -> Tensor:
    """Indices into a batch's `B * width` of places in each row."""
    flat = [number * width + place for number, some in enumerate(places) for place in some]
    return torch.tensor(flat, dtype=torch.long, device=device)


@dataclass
class _Row:
    """One example. Places are indices into `ids`."""

    ids: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    reread: list[int] = field(default_factory=list)
    at_prompt: list[int] = field(default_factory=list)
    inside: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], places: list[int] | None = None) -> None:
        """Put `ids` behind the others, their places noted in `places`."""
        if places is not None:
            places.extend(range(len(self.ids), len(self.ids) + len(ids)))
        self.ids.extend(ids)
        self.targets.extend([NO_TARGET] * len(ids))


def _row(example: Example, config: MemoryConfig | None, insertions: set[int]) -> _Row:
    row = _Row()
    read = [example.prompt_ids[-1], *example.target_ids[:-1]]
    for number, (token, target) in enumerate(zip(read, example.target_ids, strict=True)):
        woven = config if number in insertions else None
        if not (woven and woven.form == "cache"):
            row.add([token])
        if woven and number == 0:
            row.add(woven.tokens_to_reread(example.prompt_ids), row.reread)
            row.add([0] * woven.latents, row.at_prompt)
        elif woven:
            row.add([0] * woven.inference_latents, row.inside)
        if woven and woven.form == "cache":
            row.add([token])
        row.targets[-1] = target
    return row
