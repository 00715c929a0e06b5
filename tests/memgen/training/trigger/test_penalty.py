"""Equations 8 and 9 worked out by hand."""

import pytest

from memgen.errors import ConfigError
from memgen.training.trigger.penalty import mean_activation, penalised_rewards

YES, NO = True, False


def test_the_mean_is_over_good_rollouts_each_counting_once() -> None:
    """Not over their decisions: the long third one would make it 7/12."""
    decisions = [[YES, YES], [YES, NO], [YES, YES, YES, YES, NO, NO, NO, NO], [YES] * 3]
    assert mean_activation(decisions, [1.0, 1.0, 1.0, 0.0]) == pytest.approx((1 + 0.5 + 0.5) / 3)


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([1.0, 0.5, 0.0], 0.75),  # the median rollout is a good one
        ([0.0, 0.5, 1.0], 0.25),
        ([7.0, 7.0, 7.0], 0.5),  # nobody is better: all of them
        ([0.0, 1.0, 1.0], 0.25),  # tied at the median
        ([0.0, 0.0, 1.0], 0.5),
    ],
)
def test_good_is_at_or_above_the_median(rewards: list[float], expected: float) -> None:
    assert mean_activation([[YES, YES], [YES, NO], [NO, NO]], rewards) == pytest.approx(expected)


def test_the_median_of_an_even_number_lies_between_the_middle_two() -> None:
    assert mean_activation([[NO], [NO], [YES], [YES]], [0.0, 0.0, 1.0, 1.0]) == 1.0


def test_an_insertion_costs_the_more_the_less_the_good_ones_weave() -> None:
    decisions = [[YES, YES], [YES, NO], [NO, NO]]
    assert penalised_rewards(decisions, [1.0, 0.5, 0.0], 0.1) == pytest.approx([0.95, 0.475, 0.0])
    assert penalised_rewards(decisions, [0.0, 0.5, 1.0], 0.1) == pytest.approx([-0.15, 0.425, 1.0])


def test_where_the_good_ones_always_weave_it_is_free() -> None:
    assert penalised_rewards([[YES, YES], [YES], [NO]], [1.0, 1.0, 0.0], 0.5) == [1.0, 1.0, 0.0]


def test_where_they_never_weave_it_has_its_full_price() -> None:
    assert penalised_rewards([[NO], [NO], [YES, NO, YES]], [1.0, 1.0, 0.0], 0.5) == [1.0, 1.0, -1.0]


def test_who_was_not_requested_pays_nothing_and_says_nothing() -> None:
    assert mean_activation([[], [YES, NO]], [1.0, 1.0]) == 0.5
    assert mean_activation([[], [YES]], [1.0, 0.0]) == 0.0
    assert penalised_rewards([[], [YES]], [1.0, 0.0], 0.5) == [1.0, -0.5]
    assert penalised_rewards([[], []], [1.0, 0.0], 0.5) == [1.0, 0.0]


def test_without_weight_the_reward_is_what_it_was() -> None:
    assert penalised_rewards([[YES], [NO]], [0.25, 1.0], 0.0) == [0.25, 1.0]


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 rollouts have 1 rewards"):
        penalised_rewards([[YES], [NO]], [1.0], 0.1)
    with pytest.raises(ConfigError, match="^0 rollouts"):
        mean_activation([], [])
    with pytest.raises(ConfigError, match="weight is -0.1"):
        penalised_rewards([[YES]], [1.0], -0.1)
