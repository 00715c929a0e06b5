"""The rewards of ranked runs, by hand."""

import random
from itertools import permutations

import pytest

from registry.judging.ranking import rank_rewards


def test_the_worked_example() -> None:
    ranked = rank_rewards([0, 1, 2], [1, 0, 2])
    assert ranked.rewards == (0.75, 0.75, 0.0)
    assert ranked.disagreement == pytest.approx(1 / 3)


def test_two_orders_that_agree_rank_from_one_to_nought() -> None:
    assert rank_rewards([1, 0], [1, 0]).rewards == (0.0, 1.0)
    assert rank_rewards([2, 0, 3, 1], [2, 0, 3, 1]).rewards == pytest.approx((2 / 3, 0.0, 1.0, 1 / 3))


def test_a_judge_that_prefers_what_stands_first_decides_nothing() -> None:
    """Shown in opposite orders, its rankings are each other's opposite."""
    for count in range(2, 6):
        shown = list(range(count))
        ranked = rank_rewards(shown, shown[::-1])
        assert (ranked.rewards, ranked.disagreement) == (None, 1.0)


def test_half_of_the_pairs_is_what_chance_gives() -> None:
    draw = random.Random(0)
    orders = [draw.sample(range(4), 4) for _ in range(2000)]
    found = [rank_rewards(first, second) for first, second in zip(orders[::2], orders[1::2], strict=True)]
    assert sum(each.disagreement for each in found) / len(found) == pytest.approx(0.5, abs=0.03)
    assert all((each.rewards is None) == (each.disagreement >= 0.5) for each in found)


def test_rewards_of_a_group_have_the_mean_of_one_half_and_lie_between_nought_and_one() -> None:
    for count in (2, 3, 4):
        for first in permutations(range(count)):
            for second in permutations(range(count)):
                ranked = rank_rewards(first, second)
                if ranked.rewards is not None:
                    assert sum(ranked.rewards) / count == pytest.approx(0.5)
                    assert all(0 <= reward <= 1 for reward in ranked.rewards)
                    # Who both rankings put first beats all others.
                    assert first[0] != second[0] or ranked.rewards[first[0]] == 1.0


@pytest.mark.parametrize(
    ("first", "second"), [([0], [0]), ([0, 1], [0, 2]), ([0, 0], [0, 0]), ([1, 2], [1, 2]), ([], [])]
)
def test_what_ranks_nothing_is_refused(first: list[int], second: list[int]) -> None:
    with pytest.raises(ValueError, match="expected two orders"):
        rank_rewards(first, second)
