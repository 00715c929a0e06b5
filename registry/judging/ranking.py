"""Rewards of runs that were ranked against each other, in two orders. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

DECIDED_BELOW = 0.5
"""Share of pairs on which the two orders may disagree, less than. Two rankings by chance disagree on half of them."""


@dataclass(frozen=True)
class Ranked:
    rewards: tuple[float, ...] | None
    """A reward in [0, 1] for each run; None if the orders disagree as if the judge had not read the runs."""
    disagreement: float
    """Share of the pairs of runs that the two orders put differently: 0 is agreement, 1 is what a judge gets who
    always prefers what stands first."""


def rank_rewards(first: Sequence[int], second: Sequence[int]) -> Ranked:
    """Rewards from two rankings of the same runs, which were shown in opposite orders.

    A run's reward is the share of the others that it beats; a pair that the rankings put differently counts half for
    both. So the rewards of a group have the mean 0.5, whatever the runs are worth: they compare runs with one prompt,
    and say nothing of how good the best of them is.

    Args:
        first, second: the runs' numbers, 0 to n-1, the best first.

    Worked example, three runs: `[0, 1, 2]` and `[1, 0, 2]` agree that 0 and 1 beat 2, and not on 0 and 1. Of the two
    others, 0 beats one and half of one: (1 + 0.5) / 2 = 0.75; so does 1; run 2 beats none: 0. One pair of three
    differs: disagreement 1/3. For two runs, `[0, 1]` and `[0, 1]` give `(1.0, 0.0)`; `[0, 1]` and `[1, 0]` give no
    rewards, with disagreement 1.

    Raises:
        ValueError: the two do not rank the same two or more runs.
    """
    runs = sorted(first)
    if len(runs) < 2 or runs != list(range(len(runs))) or sorted(second) != runs:
        raise ValueError(f"rankings {list(first)} and {list(second)}; expected two orders of the same runs 0 to n-1")
    places = [{run: place for place, run in enumerate(ranking)} for ranking in (first, second)]
    wins = [0.0] * len(runs)
    differ = 0
    for one, other in combinations(runs, 2):
        better = [one if place[one] < place[other] else other for place in places]
        differ += better[0] != better[1]
        for winner in better:
            wins[winner] += 0.5
    pairs = len(runs) * (len(runs) - 1) // 2
    disagreement = differ / pairs
    if disagreement >= DECIDED_BELOW:
        return Ranked(None, disagreement)
    return Ranked(tuple(won / (len(runs) - 1) for won in wins), disagreement)
