"""Comparison of mean rewards while they arrive: intervals and verdicts that may be read after every observation.

Pure functions of numbers. The method is the diversified betting confidence sequence of Waudby-Smith and Ramdas
(arXiv 2010.09686, sections 4 and 5), for observations in [0, 1] that are exact at every sample size: no normality,
no least sample, no plan when to stop.

*One mean.* Against the claim that the mean is m, a gambler who stakes the share g on "more" multiplies his capital by
`1 - g + g x_i / m` at each observation. If the claim is true the expected factor is one, so by Ville's inequality
the capital, averaged over stakes g_j,

    K_t(m) = 1/J sum_j prod_{i<=t} (1 - g_j + g_j x_i / m)

ever reaches 1/a with probability a at most. K falls in m, so the m that it has never refuted form an interval
`[lower, 1]`; the same with `1 - x` gives an upper bound. Each bound has a = level / 2.

*Two arms.* Rewards of the two arms are taken in blocks, the i-th `k` of one with the i-th `l` of the other, in order
of arrival. The differences of the block means,

    d_i = mean(treatment block i) - mean(control block i)   in [-1, 1],

have the mean in question whatever the order in which the arms' rewards mix, and however often each arm is
rewarded. `(1 + d_i) / 2` is in [0, 1] and the interval above applies. Blocks as unequal as the arms' weights waste
nothing: one session of a canary is compared with the nineteen of the stable version that came meanwhile.

*Not worse.* A treatment is non-inferior by a margin M in (0, 1) once the interval's lower bound for the mean of d lies
above -M: the capital against the claim "d has the mean -M" has reached 2/level. If the treatment is worse by M or more,
that ever happens with probability level / 2 at most.

Assumed: within an arm each observation has the same mean, conditional on all before it. Sessions are assigned
independently, so an observation is a session, not an answer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

SequenceVerdict = Literal["better", "worse", "not yet"]
Floats = NDArray[np.float64]

STAKES: Floats = 2.0 ** (-np.arange(1, 13) / 2)
"""g_j from 0.71 to 0.016: the best stake is near effect / variance, and half or twice it costs little."""
LARGEST_BLOCK = 20
_CERTAIN_BLOCKS = 10
"""With fewer blocks the measured variance says little, and the largest possible one is used."""
_EDGE = 1e-9
_FEW_VALUES = 64


@dataclass(frozen=True)
class Interval:
    """Holds the mean at all times at once, with probability `1 - level` at least."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Estimate of `mean(treatment) - mean(control)` from the rewards."""

    verdict: SequenceVerdict
    """Verdict on the treatment; `not yet` until the interval has left zero."""
    estimate: float | None
    """Difference of the means; None until each arm was rewarded."""
    interval: Interval
    blocks: int
    needed: int
    """Further blocks until a verdict, or non-inferiority, can be expected; 0 once there is either. Assumes the measured
    difference or, where that is smaller, the smallest that matters."""
    non_inferior: bool | None = None
    """Whether the interval lies above minus the margin; None without a margin."""


def block_sizes(control_weight: float, treatment_weight: float) -> tuple[int, int]:
    """Observations of control and treatment in a block, as their weights are: 0.95 and 0.05 give (19, 1)."""
    ratio = control_weight / treatment_weight
    if ratio >= 1:
        return min(LARGEST_BLOCK, round(ratio)), 1
    return 1, min(LARGEST_BLOCK, round(1 / ratio))


def mean_interval(observations: Sequence[float] | Floats, level: float = 0.05) -> Interval:
    """Interval of the mean of observations in [0, 1], in order of arrival: shape (n,), n may be 0."""
    values = np.asarray(observations, dtype=np.float64)
    threshold = math.log(2 / level)
    low, high = _lower(values, threshold), 1 - _lower(1 - values, threshold)
    if low > high:  # a mean that moved: no constant explains all looks, so only the last one counts
        low = _lower(values, threshold, final=True)
        high = 1 - _lower(1 - values, threshold, final=True)
    return Interval(low, high)


def compare_means(
    control: Sequence[float] | Floats,
    treatment: Sequence[float] | Floats,
    *,
    blocks: tuple[int, int] = (1, 1),
    level: float = 0.05,
    smallest_effect: float = 0.05,
    margin: float | None = None,
) -> Difference:
    """Compare two arms by their rewards in [0, 1], each in order of arrival.

    Args:
        blocks: observations of control and treatment in one block, see `block_sizes`.
        level: most probability that any look at any time gives a verdict where there is no difference.
        smallest_effect: see `Difference.needed`.
        margin: see `Difference.non_inferior`.

    One treatment reward of 1 against one of 0 and blocks of (1, 1) gives the estimate +1 and the verdict "not yet".
    """
    differences = block_differences(control, treatment, blocks)
    halves = mean_interval((1 + differences) / 2, level)
    interval = Interval(2 * halves.low - 1, 2 * halves.high - 1)
    verdict = verdict_of(differences, level)
    estimate = float(np.mean(treatment) - np.mean(control)) if len(control) and len(treatment) else None
    non_inferior = is_non_inferior(differences, margin, level) if margin is not None else None
    needed = 0
    if verdict == "not yet" and not non_inferior:
        effect = max(abs(estimate or 0.0), smallest_effect, (estimate or 0.0) + (margin or 0.0))
        variance = float(np.var(differences)) if len(differences) >= _CERTAIN_BLOCKS else 1 / blocks[0] + 1 / blocks[1]
        needed = max(1, blocks_to_see(effect, variance, level) - len(differences))
    return Difference(verdict, estimate, interval, len(differences), needed, non_inferior)


def verdict_of(differences: Floats, level: float) -> SequenceVerdict:
    """Whether the interval of the mean of `differences`, shape (m,), has ever left zero; `not yet` if it left it both
    ways, which no constant difference does."""
    threshold = math.log(2 / level)
    halves = (1 + differences) / 2
    better, worse = (bool((log_capital(each, 0.5) >= threshold).any()) for each in (halves, 1 - halves))
    if better == worse:
        return "not yet"
    return "better" if better else "worse"


def is_non_inferior(differences: Floats, margin: float, level: float) -> bool:
    """Whether the interval of the mean of `differences`, shape (m,), has ever been above `-margin`."""
    return bool((log_capital((1 + differences) / 2, (1 - margin) / 2) >= math.log(2 / level)).any())


def block_differences(
    control: Sequence[float] | Floats, treatment: Sequence[float] | Floats, blocks: tuple[int, int]
) -> Floats:
    """`d_i` of the complete blocks, shape (m,). Left-over rewards wait for their block to be complete."""
    pairs = min(len(control) // blocks[0], len(treatment) // blocks[1])

    def means(values: Sequence[float] | Floats, size: int) -> Floats:
        whole = np.asarray(values[: pairs * size], dtype=np.float64)
        return np.asarray(whole.reshape(pairs, size).mean(axis=1), dtype=np.float64)

    return means(treatment, blocks[1]) - means(control, blocks[0])


def blocks_to_see(effect: float, variance: float, level: float = 0.05) -> int:
    """About how many blocks a verdict takes if their differences have mean `effect` > 0 and `variance`.

    The capital of stake g grows by `g e - g^2 (v + e^2) / 2` a block, to the second order, and must reach
    `log(2 J / level)`.
    """
    growth = STAKES * effect - STAKES**2 * (variance + effect**2) / 2
    return math.ceil(math.log(2 * len(STAKES) / level) / float(growth.max()))


def log_capital(observations: Floats, mean: float) -> Floats:
    """`log K_t(mean)` at each t: shape (..., n) in and out."""
    gains = np.multiply.outer(observations / mean - 1, STAKES)
    return _log_mean(np.cumsum(np.log1p(gains), axis=-2))


def _log_mean(capitals: Floats) -> Floats:
    """The logarithm of the capital that is averaged over the stakes: shape (..., J) to (...)."""
    richest = capitals.max(axis=-1)
    return np.asarray(richest + np.log(np.exp(capitals - richest[..., None]).mean(axis=-1)), dtype=np.float64)


class _Capital:
    """`log K_t(m)` of one sequence for any m. Where it has few values, as rewards have, it is read off their counts."""

    def __init__(self, observations: Floats) -> None:
        values, which = np.unique(observations, return_inverse=True)
        self._counts: Floats | None = None
        self._values = observations
        if len(values) <= _FEW_VALUES:
            self._values = values
            self._counts = np.cumsum(np.equal.outer(which, np.arange(len(values))), axis=0, dtype=np.float64)

    def at(self, times: NDArray[np.int64], mean: float) -> Floats:
        logs = np.log1p(np.multiply.outer(self._values / mean - 1, STAKES))
        if self._counts is None:
            return _log_mean(np.cumsum(logs, axis=0)[times])
        return _log_mean(self._counts[times] @ logs)


def _lower(observations: Floats, threshold: float, *, final: bool = False) -> float:
    """The least mean that the capital never refuted, or with `final` does not refute at the end.

    Since the capital falls in the mean, each time refutes the means up to one of its own, and the largest of these
    counts. A time that does not refute what another does is out of the question: few are left after the first look.
    """
    if not observations.any():
        return 0.0
    capital = _Capital(observations)
    times = np.arange(len(observations))
    least = _refuted_up_to(capital, times[-1:], threshold)
    times = times[:0] if final else times[:-1]
    while len(times) and least < 1:
        excess = capital.at(times, max(least, _EDGE)) - threshold
        times, excess = times[excess > 0], excess[excess > 0]
        if len(times):
            furthest = int(excess.argmax())
            least = max(least, _refuted_up_to(capital, times[furthest : furthest + 1], threshold))
            times = np.delete(times, furthest)
    return least


def _refuted_up_to(capital: _Capital, time: NDArray[np.int64], threshold: float) -> float:
    """The largest mean that the capital at one time refutes; 0 if it refutes none."""

    def excess(mean: float) -> float:
        return float(capital.at(time, mean)[0]) - threshold

    if excess(_EDGE) < 0:
        return 0.0
    if excess(1.0) >= 0:
        return 1.0
    root: Any = brentq(excess, _EDGE, 1.0, xtol=1e-6)
    return float(root)
