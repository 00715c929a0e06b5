"""Losses as pure functions."""

import torch
import torch.nn.functional as F
from torch import Tensor


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target token, in nats.

    Args:
        logits: `(N, V)`, any float type; the softmax runs in float32.
        targets: `(N,)`.

    Returns:
        `(N,)` float32. For logits `[0, 0]` and target 0: `ln 2 = 0.6931`.
    """
    return F.cross_entropy(logits.float(), targets, reduction="none")


def mean_by_example(nll: Tensor, example: Tensor, count: int) -> Tensor:
    """Mean token loss of each of `count` examples.

    Args:
        nll: `(N,)`; example: `(N,)`, which example each token belongs to.

    Returns:
        `(count,)`. For nll `[1, 3, 5]` and example `[0, 0, 1]`: `[2, 5]`.
    """
    totals = torch.zeros(count, dtype=nll.dtype, device=nll.device).index_add(0, example, nll)
    tokens = torch.zeros_like(totals).index_add(0, example, torch.ones_like(nll))
    return totals / tokens.clamp(min=1)


def weighted_mean(values: Tensor, weights: Tensor, whole: float | None = None) -> Tensor:
    """Mean of `values` in which each counts by its weight.

    Args:
        values: `(N,)`; weights: `(N,)`, none negative, not all zero.
        whole: sum of all weights, if these values are only some; the results of the parts then add up to the mean.

    Returns:
        A scalar. For values `[2, 5]` and weights `[1, 0.5]`: `(2 + 2.5) / 1.5 = 3`.
    """
    return (values * weights).sum() / (weights.sum() if whole is None else whole)
