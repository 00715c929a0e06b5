"""Metrics of a method from its cells: the matrix R of each seed, ACC, BWT and FWT, intervals and comparisons.

R[i, j] is the mean reward on the held-out items of task j once the tasks up to i were learned (docs of
`memgen.evaluation.forgetting`). Items are the same for every method and seed, so methods are compared item by item.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.learning.cells import Cells
from bench.learning.schedule import chosen_rate
from bench.learning.systems import METHODS, BareBase, System
from memgen.evaluation.forgetting import average_accuracy, backward_transfer, forgetting, forward_transfer
from memgen.generation.intervals import wilson_interval

ConfidenceInterval = tuple[float, float]
_DRAWS = 4000
_SURE = 0.95


@dataclass(frozen=True)
class SeedResult:
    """Metrics of one method and seed."""

    matrix: list[list[float | None]]
    acc: float
    bwt: float | None
    """None with one task."""
    fwt: float | None
    in_domain: float
    """Mean over the tasks of the score just after each was learned."""
    forgotten: list[float | None] | None
    """Forgetting by task; None while the matrix below its diagonal has gaps."""


@dataclass(frozen=True)
class MethodComparison:
    """One method less another at the end of training, on the same items, means over seeds."""

    difference: float
    """Difference of ACC."""
    interval: ConfidenceInterval
    """95% interval of the difference, bootstrapped over items within each task."""
    better: int
    """Items of the first seed that only `one` solved wholly."""
    worse: int
    """Items of the first seed that only `other` solved wholly."""
    p_value: float
    """Probability of such counts if neither were better (exact McNemar test)."""


def system_at(cells: Cells, method: str, stage: int, task: int, seed: int) -> System:
    """What answers items of `task` once the tasks up to `stage` were learned."""
    return METHODS[method].system(stage, task, seed, chosen_rate(cells) or cells.plan.lora_rates[0])


def score(cells: Cells, method: str, stage: int, task: int, seed: int) -> float | None:
    """R[stage, task]; stage -1 is the bare base."""
    cell = cells.scored(system_at(cells, method, stage, task, seed), cells.plan.labels[task])
    return None if cell is None else float(cell["score"])


def base_row(cells: Cells) -> list[float | None]:
    """Scores of the bare base by task; None where it has none yet."""
    cells_of_base = [cells.scored(BareBase(), label) for label in cells.plan.labels]
    return [None if cell is None else float(cell["score"]) for cell in cells_of_base]


def seed_result(cells: Cells, method: str, seed: int) -> SeedResult | None:
    """Metrics of one seed; None while a score that ACC, BWT or FWT needs is missing."""
    count = len(cells.plan.tasks)
    matrix = [[score(cells, method, stage, task, seed) for task in range(count)] for stage in range(count)]
    base, learned_at = base_row(cells), range(count)
    known_base = [value for value in base if value is not None]
    needed = [*matrix[-1], *(matrix[n][n] for n in range(count)), *(matrix[n - 1][n] for n in range(1, count))]
    diagonal = [value for n in range(count) if (value := matrix[n][n]) is not None]
    open_rate = method.startswith("lora") and chosen_rate(cells) is None
    if None in needed or len(known_base) < count or open_rate:
        return None
    below = [matrix[row][task] for row in range(count) for task in range(row)]
    return SeedResult(
        matrix,
        average_accuracy(matrix, learned_at),
        backward_transfer(matrix, learned_at),
        forward_transfer(matrix, known_base, learned_at),
        statistics.fmean(diagonal),
        None if None in below else forgetting(matrix, learned_at),
    )


def seed_results(cells: Cells, method: str, seeds: int) -> dict[int, SeedResult]:
    """Metrics by seed, of the seeds that are complete."""
    found = {seed: seed_result(cells, method, seed) for seed in range(seeds)}
    return {seed: result for seed, result in found.items() if result is not None}


def last_scores(cells: Cells, method: str, seed: int, task: int) -> NDArray[np.float64]:
    """Score of each held-out item at the end of training, `(N,)`."""
    last = len(cells.plan.tasks) - 1
    cell = cells.scored(system_at(cells, method, last, task, seed), cells.plan.labels[task])
    if cell is None:
        raise ValueError(f"{method} of seed {seed} has no scores on {cells.plan.labels[task]} yet; run it first")
    return np.asarray(cell["scores"], dtype=np.float64)


def mean_scores(cells: Cells, method: str, seeds: Sequence[int]) -> list[NDArray[np.float64]]:
    """Scores of each task's items at the end of training, means over the seeds."""
    tasks = range(len(cells.plan.tasks))
    return [np.mean([last_scores(cells, method, seed, task) for seed in seeds], axis=0) for task in tasks]


def item_interval(by_task: Sequence[NDArray[np.float64]]) -> ConfidenceInterval:
    """95% of the mean over tasks of the mean over items, bootstrapped over items within each task.

    A task whose items are all alike adds nothing to the width: for `[[1, 1], [0, 0]]` it is (0.5, 0.5).
    """
    generator = np.random.default_rng(0)
    means = [scores[generator.integers(len(scores), size=(_DRAWS, len(scores)))].mean(axis=1) for scores in by_task]
    low, high = np.quantile(np.mean(means, axis=0), [(1 - _SURE) / 2, (1 + _SURE) / 2])
    return float(low), float(high)


def seed_interval(values: Sequence[float]) -> ConfidenceInterval | None:
    """95% of the mean over seeds by Student's t; None of fewer than two. For `[0, 2]`: 1 plus and minus 12.7062."""
    if len(values) < 2:
        return None
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    half = float(stats.t.ppf((1 + _SURE) / 2, len(values) - 1)) * error
    return mean - half, mean + half


def compare(cells: Cells, one: str, other: str, seeds: Sequence[int]) -> MethodComparison:
    """Compare two methods at the end of training: `one` less `other`."""
    ours, theirs = mean_scores(cells, one, seeds), mean_scores(cells, other, seeds)
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    tasks = range(len(cells.plan.tasks))
    solved = [np.concatenate([last_scores(cells, m, seeds[0], t) for t in tasks]) >= 1.0 for m in (one, other)]
    better, worse = int((solved[0] & ~solved[1]).sum()), int((solved[1] & ~solved[0]).sum())
    p_value = float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    mean = float(np.mean([scores.mean() for scores in differences]))
    return MethodComparison(mean, item_interval(differences), better, worse, p_value)


def share_interval(scores: NDArray[np.float64]) -> ConfidenceInterval:
    """95% (Wilson) of the mean of items' scores `(N,)`, each 0 to 1; too wide where scores are not 0 or 1."""
    return wilson_interval(float(scores.sum()), len(scores))
