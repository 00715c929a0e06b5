"""Losses of GRPO against numbers worked out by hand."""

import math

import pytest
import torch

from memgen.errors import ConfigError
from memgen.training.reward.losses import clipped_surrogate, group_advantages, has_spread, kl_to_start, sequence_weights


def test_advantages_are_distances_from_the_groups_mean() -> None:
    assert group_advantages([1.0, 0.0, 0.0, 3.0], scale=False).tolist() == [0.0, -1.0, -1.0, 2.0]


def test_scaled_advantages_are_in_standard_deviations() -> None:
    """Mean 1, squares 0 + 1 + 1 + 4 = 6, over 3: a standard deviation of sqrt 2."""
    unit = 1 / (math.sqrt(2) + 1e-4)
    assert group_advantages([1.0, 0.0, 0.0, 3.0], scale=True).tolist() == pytest.approx([0, -unit, -unit, 2 * unit])
    assert group_advantages([1.0, 0.0], scale=True).tolist() == pytest.approx([0.7070, -0.7070], abs=1e-4)


@pytest.mark.parametrize("scale", [True, False])
def test_equal_rewards_and_groups_of_one_have_no_advantage(scale: bool) -> None:
    assert group_advantages([0.3, 0.3, 0.3], scale=scale).tolist() == pytest.approx([0, 0, 0], abs=1e-3)
    assert group_advantages([5.0], scale=scale).tolist() == [0.0]
    assert not has_spread([0.3, 0.3])
    assert has_spread([0.3, 0.4])


@pytest.mark.parametrize(
    ("loss", "weights"), [("grpo", [1 / 2, 1 / 6]), ("bnpo", [1 / 4, 1 / 4]), ("dr_grpo", [1 / 8, 1 / 8])]
)
def test_what_a_token_weighs(loss: str, weights: list[float]) -> None:
    """Two sequences, of one and three tokens, of at most four."""
    assert sequence_weights([1, 3], loss, max_new_tokens=4).tolist() == pytest.approx(weights)


def test_a_sequence_without_tokens_divides_by_nothing() -> None:
    assert sequence_weights([0, 2], "grpo", max_new_tokens=4).isfinite().all()
    assert sequence_weights([0], "bnpo", max_new_tokens=4).isfinite().all()
    with pytest.raises(ConfigError, match="loss is 'ppo'; expected one of"):
        sequence_weights([1], "ppo", max_new_tokens=4)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped", "slope"),
    [
        (1.0, 2.0, -2.0, False, -2.0),
        (1.5, 1.0, -1.3, True, 0.0),
        (1.5, -1.0, 1.5, False, 1.5),
        (0.5, 1.0, -0.5, False, -0.5),
        (0.5, -1.0, 0.8, True, 0.0),
        (1.25, 1.0, -1.25, False, -1.25),
    ],
)
def test_the_surrogate_stops_where_the_policy_has_gone_far_enough(
    ratio: float, advantage: float, loss: float, clipped: bool, slope: float
) -> None:
    """Bounds 0.8 and 1.3. The slope is the derivative by the log probability: `-ratio * A`, or nothing if clipped."""
    logprobs = torch.tensor([math.log(0.1 * ratio)], requires_grad=True)
    found, cut = clipped_surrogate(
        logprobs, torch.tensor([math.log(0.1)]), torch.tensor([advantage]), eps_low=0.2, eps_high=0.3
    )
    found.sum().backward()
    assert found.item() == pytest.approx(loss)
    assert cut.item() == clipped
    assert logprobs.grad.item() == pytest.approx(slope)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_what_was_logged_as_impossible_leaves_numbers(advantage: float) -> None:
    logprobs = torch.tensor([-2.0, -1.0], requires_grad=True)
    found, _ = clipped_surrogate(
        logprobs, torch.tensor([-9999.0, -1.0]), torch.tensor([advantage] * 2), eps_low=0.2, eps_high=0.2
    )
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(logprobs.grad).all()


def test_the_estimate_of_kl() -> None:
    logprobs, start = torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([0.25, 0.5, 0.25]).log()
    expected = [0.5 + math.log(2) - 1, 2 - math.log(2) - 1, 0.0]
    assert kl_to_start(logprobs, start).tolist() == pytest.approx(expected, abs=1e-6)


def test_the_mean_estimate_is_the_divergence() -> None:
    """Over tokens weighted as the policy would draw them."""
    policy, start = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    mean = (policy * kl_to_start(policy.log(), start.log())).sum()
    assert mean.item() == pytest.approx((policy * (policy / start).log()).sum().item(), abs=1e-6)
