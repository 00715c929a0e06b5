"""The reward-adaptive penalty on weaving memory (MemGen, arXiv 2509.24704, equations 8 and 9).

A trigger that is paid for reward alone has no reason to skip where memory makes no difference. The penalty takes a
little of each rollout's reward for every insertion, the less the more the good rollouts of the batch weave themselves.

What the paper leaves open, and what is done here:

- Equation 9 divides a trajectory's decisions by `|tau_i|` and calls the result a mean activation *probability*. Only
  decision points count here, not tokens: over tokens `p_bar` is near 0 whatever the good rollouts do, and nothing
  adapts.
- Decisions are 0 or 1 and `p_bar` lies between, so `max(0, d - p_bar)` is `1 - p_bar` for each INVOKE and 0 for each
  SKIP: a price per insertion that all rollouts of a batch share. It vanishes only when the good ones always weave.
- The sum over j is not divided by the number of decisions. An insertion costs K tokens wherever it stands, and a mean
  would let a rollout thin its price out by writing more sentences.
- A rollout without a decision pays nothing and has no part in `p_bar`.
- The median of an even number of rewards lies half-way between the middle two. Of rewards 0, 0, 1, 1 the good ones are
  those with 1; the lower middle would make all of them good.
"""

import statistics
from collections.abc import Sequence

from memgen.errors import ConfigError

Decisions = Sequence[bool]
"""Decisions of one rollout, all its turns in order: true is INVOKE."""


def mean_activation(decisions: Sequence[Decisions], rewards: Sequence[float]) -> float:
    """`p_bar`: how often good rollouts weave; the mean of their shares over those at or above the median reward.

    For decisions `[1, 1]`, `[1, 0]`, `[0, 0]` and rewards 1, 0.5, 0 the first two are good: (1 + 0.5) / 2 = 0.75.
    0 if no good rollout had a decision.

    Raises:
        ConfigError: not as many rewards as rollouts, or none.
    """
    _check(decisions, rewards)
    median = statistics.median(rewards)
    good = [own for own, reward in zip(decisions, rewards, strict=True) if reward >= median and own]
    return statistics.fmean(sum(own) / len(own) for own in good) if good else 0.0


def penalised_rewards(decisions: Sequence[Decisions], rewards: Sequence[float], weight: float) -> list[float]:
    """`R(tau_i) - weight * sum_j max(0, d_ij - p_bar)` for each rollout of a batch.

    For the rollouts of `mean_activation` and weight 0.1 an insertion costs 0.1 * (1 - 0.75) = 0.025: 0.95, 0.475, 0.

    Args:
        weight: lambda; 0 is no penalty.

    Raises:
        ConfigError: not as many rewards as rollouts, none, or a negative weight, which would pay for insertions.
    """
    if weight < 0:
        raise ConfigError(f"the penalty's weight is {weight}; expected 0 or more")
    p_bar = mean_activation(decisions, rewards)
    return [
        reward - weight * sum(max(0.0, float(invoked) - p_bar) for invoked in own)
        for own, reward in zip(decisions, rewards, strict=True)
    ]


def _check(decisions: Sequence[Decisions], rewards: Sequence[float]) -> None:
    if len(decisions) != len(rewards) or not rewards:
        raise ConfigError(f"{len(decisions)} rollouts have {len(rewards)} rewards; expected one each, and at least one")
