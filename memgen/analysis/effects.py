"""Whether dropping one cluster's latents makes other failures than dropping as many at random: statistics, no model.

An item that was answered once without the cluster's latents and D times without random ones has D + 1 outcomes. If it
is all the same which latents go, any of the D + 1 might as well be the cluster's. So for each type of failure the share
of items that fail so has a known distribution, a sum of one draw for each item (Poisson's binomial), and an interval
from it is exact however few the items: the permutation test within items. A share above it is said to rise.

Roles follow the intervention study of MemGen (arXiv 2509.24704): a cluster whose loss brings failures of planning or of
composing steps is planning memory; of tools' forms, their answers or the answer's form, procedural memory; of holding
on to the demand or to one's own thoughts, working memory. The paper reads this off a figure; here it is a rule, `RULE`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memgen.analysis.failures import FailureType

Label = FailureType | None
"""How one item failed; None if it is right."""
ROLES: dict[str, frozenset[FailureType]] = {
    "planning memory": frozenset({FailureType.PLANNING, FailureType.COMPOSITIONAL}),
    "procedural memory": frozenset({FailureType.TOOL_PARSING, FailureType.TOOL_RESPONSE, FailureType.ANSWER_FORMAT}),
    "working memory": frozenset({FailureType.DEMAND, FailureType.THINK_ACT}),
}
NO_ROLE = "no clear role"
RULE = (
    "A cluster has a role if exactly one group of failures rises when its latents are dropped: planning and "
    "compositional reasoning for planning memory; tool parsing, tool response and answer format for procedural "
    "memory; demand misunderstood and think-act inconsistency for working memory. A group rises if the share of items "
    "that fail so is above the interval of shares that random drops of as many latents give on the same items, at a "
    "confidence of 95% over all comparisons of all clusters (Bonferroni). The other groups must stay within an "
    "interval of 95% of their own: what was not shown to rise was not shown to stay. Anything else is no clear role."
)
_OVERALL = 0.05
"""Chance, at most, that anything rises by chance."""


@dataclass(frozen=True)
class FailureMove:
    """What became of one type of failure, as shares of the items."""

    failure: str
    """A failure type, or a role for its group of types."""
    untouched: float
    """With all latents."""
    dropped: float
    """Without the cluster's."""
    random: float
    """Without random ones: the mean over the draws."""
    random_interval: tuple[float, float]
    """Where `dropped` would be if the cluster's latents were like any."""
    rises: bool


@dataclass(frozen=True)
class Verdict:
    moves: tuple[FailureMove, ...]
    """One for each type of failure, then one for each role."""
    role: str
    """A role, or `no clear role`."""
    reason: str


def confidence(clusters: int) -> float:
    """The confidence of each interval when so many clusters are judged, so that all of them have 95% together."""
    return 1 - _OVERALL / (clusters * (len(FailureType) + len(ROLES)))


def judge_drop(
    untouched: Sequence[Label], dropped: Sequence[Label], draws: Sequence[Sequence[Label]], *, clusters: int
) -> Verdict:
    """What dropping a cluster does to the failures of items.

    Args:
        untouched, dropped: how each item failed with all latents, and without the cluster's.
        draws: the same without random latents, one or more times.
        clusters: how many clusters are judged so.
    """
    level = 1 - confidence(clusters)
    groups: dict[str, Collection[FailureType]] = {failure.value: {failure} for failure in FailureType}
    moves = {
        name: _move(name, failures, (untouched, dropped, draws), level) for name, failures in (groups | ROLES).items()
    }
    rising = [role for role in ROLES if moves[role].rises]
    plain = {role: _move(role, ROLES[role], (untouched, dropped, draws), _OVERALL) for role in ROLES}
    maybe = [role for role in ROLES if plain[role].rises and role not in rising]
    role = rising[0] if len(rising) == 1 and not maybe else NO_ROLE
    return Verdict(tuple(moves.values()), role, _reason([moves[one] for one in rising], [plain[one] for one in maybe]))


def share_interval(chances: NDArray[np.float64], level: float) -> tuple[float, float]:
    """The central interval of confidence `1 - level` of the share of items that come up, each with a chance of its own.

    For two items with chances of one half, `level` 0.4: (0, 1), because none and both each come up in a quarter of all
    cases, and leaving either out would leave too much.
    """
    counts = np.ones(1)
    for chance in chances[chances > 0].tolist():  # most items fail in one way or never
        counts = np.convolve(counts, [1 - chance, chance])
    below = counts.cumsum()
    low = int(np.searchsorted(below, level / 2, side="right"))
    high = int(np.searchsorted(below, 1 - level / 2 - 1e-12))
    return low / len(chances), min(high, len(chances)) / len(chances)


def _move(
    name: str,
    failures: Collection[FailureType],
    labels: tuple[Sequence[Label], Sequence[Label], Sequence[Sequence[Label]]],
    level: float,
) -> FailureMove:
    untouched, dropped = (_fails(some, failures) for some in labels[:2])
    random = np.stack([_fails(some, failures) for some in labels[2]])
    chances = (dropped + random.sum(axis=0)) / (len(random) + 1)
    low, high = share_interval(chances, level)
    share = float(dropped.mean())
    return FailureMove(
        name, float(untouched.mean()), share, float(random.mean()), (low, high), bool(share > high + 1e-9)
    )


def _fails(labels: Sequence[Label], failures: Collection[FailureType]) -> NDArray[np.float64]:
    return np.array([label in failures for label in labels], dtype=np.float64)


def _reason(rising: Sequence[FailureMove], maybe: Sequence[FailureMove]) -> str:
    if not rising:
        return "no group of failures rises beyond what random drops of as many latents do"
    rises = "; ".join(map(_described, rising))
    if len(rising) > 1:
        return f"several groups of failures rise: {rises}"
    return f"{rises}; others may rise too: {'; '.join(map(_described, maybe))}" if maybe else rises


def _described(move: FailureMove) -> str:
    return (
        f"{move.failure}: {100 * move.dropped:.1f}% of the items fail so, with random drops {100 * move.random:.1f}% "
        f"(up to {100 * move.random_interval[1]:.1f}%)"
    )
