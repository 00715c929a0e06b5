"""Group relative policy optimisation as pure functions: advantages, clipped surrogate, token weights, KL estimate.

Sources: GRPO, arXiv 2402.03300, equations 3 and 4; `dr_grpo`, arXiv 2503.20783; unequal clipping bounds, DAPO, arXiv
2503.14476; the names of the losses are those of TRL's `GRPOConfig.loss_type`.

N counts tokens (or decisions) of a batch, S its sequences. A sequence is a whole rollout, all turns of it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from memgen.config import POLICY_LOSSES
from memgen.errors import ConfigError

_MOST_LOG_RATIO = 20.0
_SPREAD_FLOOR = 1e-4
"""Added to a group's standard deviation, as in TRL."""


def has_spread(rewards: Sequence[float]) -> bool:
    """Whether a group can be learned from: not all of its rewards are equal."""
    return len(set(rewards)) > 1


def group_advantages(rewards: Sequence[float], *, scale: bool) -> Tensor:
    """How much better each rollout of a group did than its group.

    Args:
        scale: divide by the group's standard deviation (of a sample, G - 1). `dr_grpo` does not: it would favour
            groups that are nearly all right or all wrong.

    Returns:
        `(G,)` float32. For rewards `[1, 0]`: `[0.5, -0.5]`, scaled `[0.7070, -0.7070]`. Zeros for a group of one.

    Raises:
        ConfigError: a reward is not finite.
    """
    if not all(map(math.isfinite, rewards)):
        raise ConfigError(f"rewards of a group are {list(rewards)}; expected finite numbers")
    values = torch.tensor(rewards, dtype=torch.float32)
    centred = values - values.mean()
    if not scale or len(rewards) < 2:
        return centred
    return centred / (values.std() + _SPREAD_FLOOR)


def sequence_weights(tokens: Sequence[int], loss: str, *, max_new_tokens: int) -> Tensor:
    """What one token of each sequence weighs in the loss of a batch; the loss is the weighted sum over its tokens.

    Args:
        tokens: how many each of the S sequences has.
        loss: `grpo`, the mean over a sequence's tokens, then over sequences; `bnpo`, the sum over all tokens over
            their number in the batch; `dr_grpo`, that sum over `S * max_new_tokens`, which favours no length.

    Returns:
        `(S,)` float32. For 1 and 3 tokens, `max_new_tokens` 4: grpo `[1/2, 1/6]`, bnpo `[1/4, 1/4]`, dr_grpo
        `[1/8, 1/8]`.

    Raises:
        ConfigError: the loss is not one of `POLICY_LOSSES`.
    """
    count, lengths = len(tokens), torch.tensor(tokens, dtype=torch.float32)
    if loss == "grpo":
        return 1 / (count * lengths.clamp(min=1))
    if loss == "bnpo":
        return torch.full((count,), 1 / max(1, sum(tokens)))
    if loss == "dr_grpo":
        return torch.full((count,), 1 / (count * max_new_tokens))
    raise ConfigError(f"loss is {loss!r}; expected one of {POLICY_LOSSES}")


def clipped_surrogate(
    logprobs: Tensor, sampled_logprobs: Tensor, advantages: Tensor, *, eps_low: float, eps_high: float
) -> tuple[Tensor, Tensor]:
    """`-min(ratio * A, clip(ratio, 1 - eps_low, 1 + eps_high) * A)` of each token.

    Args:
        logprobs: `(N,)` under the policy being trained.
        sampled_logprobs: `(N,)` under the policy that drew the tokens.
        advantages: `(N,)`, of each token's sequence.

    Returns:
        (loss `(N,)`; clipped `(N,)` bool, where the bound took the gradient away). For ratio 1.5 and both bounds 0.2:
        with advantage 1 the loss is -1.2 and clipped; with advantage -1 it is 1.5 and not.
    """
    # Beyond e^20 a float's exponential soon is infinite, and a clipped token's gradient not a number.
    ratio = (logprobs - sampled_logprobs).clamp(-_MOST_LOG_RATIO, _MOST_LOG_RATIO).exp()
    free, bounded = ratio * advantages, ratio.clamp(1 - eps_low, 1 + eps_high) * advantages
    return -torch.minimum(free, bounded), bounded < free


def kl_to_start(logprobs: Tensor, start_logprobs: Tensor) -> Tensor:
    """Estimate of KL(policy || start) from each sampled token: `r - log r - 1` with `r = start / policy`.

    Never negative, unbiased for tokens drawn from the policy (Schulman's k3, `joschu.net/blog/kl-approx.html`).

    Args:
        logprobs, start_logprobs: `(N,)`.

    Returns:
        `(N,)`. For probabilities 0.5 and 0.25: `0.5 + ln 2 - 1 = 0.1931`.
    """
    log_ratio = start_logprobs - logprobs
    return log_ratio.exp() - log_ratio - 1
