"""One policy gradient step of a weaver on groups of rollouts.

Only what the weaver reads or writes is differentiated, so a turn without an insertion has no gradient. Such turns take
no pass; their tokens count in the loss's denominator all the same.

Logprobs of tokens drawn by the engine are the engine's own. In float32 it and the training forward agree; in bfloat16
they round differently, and the ratio corrects for that, because it names the distribution that was really drawn from.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memgen.config import GrpoConfig
from memgen.memory.host import AdapterHost
from memgen.training.examples import Example
from memgen.training.forward import PrefixSource, supervised_nll
from memgen.training.optimizing import Trainable
from memgen.training.reward.losses import clipped_surrogate, group_advantages, kl_to_start, sequence_weights
from memgen.training.reward.rollouts import Group, RolledTurn, example_of

_SIMILAR_TOKENS = 16
"""Answers whose lengths differ by less are not sorted: the order of rollouts stays."""


@dataclass(frozen=True)
class WeaverPart:
    """Turns that are differentiated at once: R of them, with N tokens."""

    examples: tuple[Example, ...]
    advantages: Tensor
    """`(R,)`."""
    weights: Tensor
    """`(R,)`: of one token of each turn in the loss."""
    sampled_logprobs: Tensor
    """`(N,)` under the policy that drew the tokens."""
    importance: Tensor | None
    """`(N,)`: what each token counts for; None is 1 for all."""
    start_logprobs: Tensor | None
    """`(N,)` under the memory as it was at the start; None without a KL term."""


@dataclass(frozen=True)
class WeaverUpdate:
    """What one optimizer step was like. Means over the N tokens that were differentiated."""

    loss: float
    grad_norm: float
    """Before clipping of gradients."""
    clip_share: float
    """Share of tokens whose gradient the bound on the ratio took away."""
    kl: float
    """Mean estimate of KL(policy || start) in nats; 0 without a KL term."""


@dataclass(frozen=True)
class _Drawn:
    turn: RolledTurn
    advantage: float
    weight: float


def make_parts(
    host: AdapterHost,
    memory: str,
    start: str | None,
    groups: Sequence[Group],
    prompts: PrefixSource,
    config: GrpoConfig,
    own: Collection[int] | None = None,
) -> list[WeaverPart]:
    """Everything about a batch of groups that stays the same over its optimizer steps.

    Args:
        start: name of the memory as it was at the start. Tokens without logprobs are taken as drawn from it.
        groups: the groups of the whole step, each with a spread of rewards.
        own: places of the groups that are differentiated here; None is all. The others count in the weights of tokens.

    Returns:
        Parts of `config.batch_size` turns at most; none if memory was woven into no turn.
    """
    if not groups:
        return []
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    mine = [own is None or place in own for place, group in enumerate(groups) for _ in group.rollouts]
    weights = sequence_weights([r.tokens for r in rollouts], config.loss, max_new_tokens=config.max_new_tokens)
    scale = config.loss != "dr_grpo"
    advantages = torch.cat([group_advantages(group.rewards, scale=scale) for group in groups])
    shape = host.memories[memory].config
    drawn = [
        _Drawn(turn, advantage, weight)
        for rollout, advantage, weight, here in zip(rollouts, advantages.tolist(), weights.tolist(), mine, strict=True)
        for turn in rollout.turns
        if here and example_of(turn, shape).insertions != ()
    ]
    drawn.sort(key=lambda one: len(one.turn.token_ids) // _SIMILAR_TOKENS)
    batches = [drawn[n : n + config.batch_size] for n in range(0, len(drawn), config.batch_size)]
    return [_part(host, memory, start, batch, prompts, config) for batch in batches]


def update(
    host: AdapterHost,
    memory: str,
    trainable: Trainable,
    parts: Sequence[WeaverPart],
    prompts: PrefixSource,
    config: GrpoConfig,
) -> WeaverUpdate:
    """One optimizer step on all parts, of all devices.

    Raises:
        TrainingDiverged: loss or gradient is not finite.
    """
    trainable.zero_grad()
    total = clipped = tokens = divergence = 0.0
    for part in parts:
        logprobs, rows = _logprobs(host, memory, part.examples, prompts, config)
        losses, cut = clipped_surrogate(
            logprobs, part.sampled_logprobs, part.advantages[rows], eps_low=config.eps_low, eps_high=config.eps_high
        )
        if part.importance is not None:
            losses = losses * part.importance
        if part.start_logprobs is not None:
            kl = kl_to_start(logprobs, part.start_logprobs)
            losses = losses + config.kl_coefficient * kl
            divergence += float(kl.detach().sum())
        loss = (part.weights[rows] * losses).sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        total += float(loss.detach())
        clipped += float(cut.sum())
        tokens += len(losses)
    total, grad_norm = trainable.step(total)
    clipped, divergence, tokens = trainable.devices.total(torch.tensor([clipped, divergence, tokens])).tolist()
    return WeaverUpdate(total, grad_norm, clipped / max(1.0, tokens), divergence / max(1.0, tokens))


def _part(
    host: AdapterHost,
    memory: str,
    start: str | None,
    drawn: Sequence[_Drawn],
    prompts: PrefixSource,
    config: GrpoConfig,
) -> WeaverPart:
    device, shape = host.backbone.device, host.memories[memory].config
    examples = tuple(example_of(one.turn, shape) for one in drawn)
    of_start: Tensor | None = None
    logged = all(len(one.turn.logprobs) == len(one.turn.token_ids) for one in drawn)
    if start is not None and (config.kl_coefficient > 0 or not logged):
        with torch.no_grad():
            of_start, _ = _logprobs(host, start, examples, prompts, config)
    sampled = [torch.tensor(one.turn.logprobs, device=device) for one in drawn]
    if of_start is not None:
        unknown = torch.split(of_start, [len(example.target_ids) for example in examples])
        sampled = [torch.cat([known, rest[len(known) :]]) for known, rest in zip(sampled, unknown, strict=True)]
    return WeaverPart(
        examples=examples,
        advantages=torch.tensor([one.advantage for one in drawn], device=device),
        weights=torch.tensor([one.weight for one in drawn], device=device),
        sampled_logprobs=torch.cat(sampled),
        importance=_importance([one.turn for one in drawn], device),
        start_logprobs=of_start if config.kl_coefficient > 0 else None,
    )


def _importance(turns: Sequence[RolledTurn], device: torch.device) -> Tensor | None:
    if not any(turn.importance for turn in turns):
        return None
    return torch.tensor([value for t in turns for value in t.importance or [1.0] * len(t.token_ids)], device=device)


def _logprobs(
    host: AdapterHost, memory: str, examples: Sequence[Example], prompts: PrefixSource, config: GrpoConfig
) -> tuple[Tensor, Tensor]:
    """(log probability of each token `(N,)`, row of each token `(N,)`)."""
    nll, rows = supervised_nll(
        host,
        memory,
        examples,
        prompts,
        temperature=config.temperature,
        checkpointing=config.activation_checkpointing,
    )
    return -nll, rows
