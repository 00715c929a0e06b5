"""Which examples an optimizer step reads, and how they are shared among passes and devices.

All of it follows from the seed and the step alone, so a run that was killed goes on as if it had not been.
"""

import functools
import itertools
from collections.abc import Sequence

import torch

from memgen.config import TrainingConfig
from memgen.training.examples import Example

_WINDOW = 4
"""Batches that are sorted by length together. More saves more padding and mixes tasks less within a step."""
_SIMILAR_TOKENS = 16


def batch_of_step(examples: Sequence[Example], config: TrainingConfig, step: int) -> list[Example]:
    """The examples of one step: consecutive slices of one shuffled pass over the data after another."""
    lengths = tuple(len(example.target_ids) for example in examples)
    batch = []
    for draw in range(step * config.batch_size, (step + 1) * config.batch_size):
        epoch, place = divmod(draw, len(examples))
        batch.append(examples[_order_of_epoch(lengths, config.batch_size, config.seed, epoch)[place]])
    return batch


def parts_of_batch(batch: Sequence[Example], passes: int, devices: int) -> list[list[Sequence[Example]]]:
    """A batch by pass, then by device; sizes differ by one at most.

    Passes take neighbours, which are of similar length; devices take turns, so that all work equally long. Of 5
    examples in 2 passes on 2 devices: `[[[0], [1]], [[2, 4], [3]]]`.
    """
    bounds = [number * len(batch) // passes for number in range(passes + 1)]
    slices = [batch[start:end] for start, end in itertools.pairwise(bounds)]
    return [[part[rank::devices] for rank in range(devices)] for part in slices]


@functools.lru_cache(maxsize=2)
def _order_of_epoch(lengths: tuple[int, ...], batch_size: int, seed: int, epoch: int) -> tuple[int, ...]:
    """A shuffle of all examples in which neighbours have answers of similar length.

    Each run of `_WINDOW` batches is sorted by length, then its batches are shuffled: padding is computed too, and
    short answers must not pay for one long answer beside them. Sorted coarsely, because the exact length of a short
    answer tells the answer, and batches of one class learn badly.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    shuffled = torch.randperm(len(lengths), generator=generator).tolist()
    order: list[int] = []
    for start in range(0, len(shuffled), _WINDOW * batch_size):
        window = sorted(shuffled[start : start + _WINDOW * batch_size], key=lambda n: lengths[n] // _SIMILAR_TOKENS)
        batches = [window[n : n + batch_size] for n in range(0, len(window), batch_size)]
        for place in torch.randperm(len(batches), generator=generator).tolist():
            order.extend(batches[place])
    return tuple(order)
