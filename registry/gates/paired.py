"""Paired comparison of two sets of scores on the same items: how much changed, how sure that is. Knows no rows.

Right-or-wrong scores are compared by the exact McNemar test (McNemar 1947), with Newcombe's interval for the difference
of paired shares (Statistics in Medicine 17:2635, 1998, method 10), which stays wide where no item flipped. Graded
scores are compared by a sign-flip permutation test and the bias-corrected bootstrap, both with fixed random numbers:
the same scores give the same evidence. Everything is two-sided.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 9999
_SEED = 20260101


@dataclass(frozen=True)
class Paired:
    """Result of `compare_pairs`. Changes are candidate less champion, in [-1, 1]."""

    test: str
    """`mcnemar` or `bootstrap`."""
    items: int
    better: int
    """Items that the candidate scores higher on."""
    worse: int
    change: float
    """Mean over the items."""
    low: float
    high: float
    """Interval of the change at confidence `1 - level`."""
    level: float
    p_value: float
    """Two-sided p value of the hypothesis that nothing changed."""

    @property
    def discordant(self) -> int:
        """Items that flipped, either way."""
        return self.better + self.worse


def compare_pairs(champion: Sequence[float], candidate: Sequence[float], *, level: float) -> Paired:
    """Compare scores in [0, 1] of two subjects, item by item.

    For champion `[1, 1, 1, 0]` and candidate `[1, 0, 0, 1]`: McNemar, better 1, worse 2, change -0.25, p 1.0.

    Raises:
        ValueError: no items, or not as many of one as of the other.
    """
    if not champion or len(champion) != len(candidate):
        raise ValueError(f"{len(champion)} scores against {len(candidate)}; expected as many, at least one")
    old, new = np.asarray(champion, dtype=float), np.asarray(candidate, dtype=float)
    better, worse = int((new > old).sum()), int((new < old).sum())
    if set(old) | set(new) <= {0.0, 1.0}:
        test, (low, high) = "mcnemar", _newcombe(old, new, level)
        p_value = float(stats.binomtest(worse, better + worse).pvalue) if better + worse else 1.0
    else:
        test, (low, high), p_value = "bootstrap", _bootstrap(old, new, level), _sign_flips(old, new)
    change = float(new.mean() - old.mean())
    return Paired(test, len(old), better, worse, change, low, high, level, p_value)


def _newcombe(old: Any, new: Any, level: float) -> tuple[float, float]:
    """Wilson's intervals of the two shares, combined with regard to how the items agree."""
    count = len(old)
    both, neither = int(((old == 1) & (new == 1)).sum()), int(((old == 0) & (new == 0)).sum())
    lost, gained = int((old > new).sum()), int((new > old).sum())
    p_old, p_new = (both + lost) / count, (both + gained) / count
    low_old, high_old = _wilson(both + lost, count, level)
    low_new, high_new = _wilson(both + gained, count, level)
    phi = _agreement(both, lost, gained, neither)
    change = p_new - p_old
    down = _combined(p_new - low_new, high_old - p_old, phi)
    up = _combined(high_new - p_new, p_old - low_old, phi)
    return max(-1.0, change - down), min(1.0, change + up)


def _agreement(both: int, lost: int, gained: int, neither: int) -> float:
    """The phi coefficient of the two by two table, corrected for continuity; 0 where a margin is empty."""
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    if margins == 0:
        return 0.0
    cross = float(both * neither - lost * gained)
    if cross > 0:
        cross = max(cross - (both + lost + gained + neither) / 2, 0.0)
    return cross / math.sqrt(margins)


def _combined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))


def _wilson(right: int, count: int, level: float) -> tuple[float, float]:
    interval = stats.binomtest(right, count).proportion_ci(confidence_level=1 - level, method="wilson")
    return float(interval.low), float(interval.high)


def _bootstrap(old: Any, new: Any, level: float) -> tuple[float, float]:
    changes = new - old
    if np.ptp(changes) < 1e-12:
        # Resampling sees no spread. What it can't have seen: items of a share that may still be this large.
        unseen = float(stats.binomtest(0, len(old)).proportion_ci(confidence_level=1 - level, method="exact").high)
        return max(-1.0, float(changes[0]) - unseen), min(1.0, float(changes[0]) + unseen)
    found = stats.bootstrap(
        (new, old),
        _mean_change,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,
        confidence_level=1 - level,
        method="BCa",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return float(found.low), float(found.high)


def _sign_flips(old: Any, new: Any) -> float:
    if np.array_equal(old, new) or len(old) == 1:
        return 1.0
    found = stats.permutation_test(
        (new, old),
        _mean_change,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,
        rng=np.random.default_rng(_SEED),
    )
    return float(found.pvalue)


def _mean_change(new: Any, old: Any, axis: int = -1) -> Any:
    return np.mean(new - old, axis=axis)
