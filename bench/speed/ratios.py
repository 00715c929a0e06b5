"""Ratios of two ways of doing the same work, timed in turn in one process.

Absolute times of a shared machine drift, their quotients hold: the sides run A B A B, each pair gives one ratio, and
the median of the pairs is reported with the smallest and the largest.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from memgen.backbone.loading import Backbone

Work = Callable[[], object]


class NotHere(RuntimeError):
    """This machine can't run what is measured."""


class InvalidRun(RuntimeError):
    """What ran is not what the key promises, so its ratio would mislead."""


@dataclass(frozen=True)
class Ratio:
    """Time or memory of one side over the other, pair by pair."""

    key: str
    what: str
    values: tuple[float, ...]
    """Ratio of each pair."""

    @property
    def value(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Findings:
    """What one section measured."""

    ratios: tuple[Ratio, ...]
    method: dict[str, Any]
    """How, and the absolute numbers that help to read the ratios."""


@dataclass(frozen=True)
class Bench:
    """What every section needs."""

    backbone: Backbone
    quick: bool = False
    """A smoke test: few tokens, one pair; its ratios mean nothing."""
    results: Path | None = None
    """Folder for what a section writes beside its ratios."""

    def pairs(self, wanted: int) -> int:
        """The number of pairs that are timed: as wanted, or one in a smoke test."""
        return 1 if self.quick else wanted

    def ratio(self, key: str, what: str, one: Work, other: Work, *, pairs: int) -> Ratio:
        """Time of `one` over that of `other`; each runs once before, untimed."""
        one()
        other()
        return Ratio(key, what, tuple(self.seconds(one) / self.seconds(other) for _ in range(self.pairs(pairs))))

    def seconds(self, work: Work) -> float:
        """Wall time of one call, until the device is done."""
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.backbone.device.type == "cuda":
            torch.cuda.synchronize(self.backbone.device)
