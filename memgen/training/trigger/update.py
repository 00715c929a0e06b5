"""One policy gradient step of a trigger on groups of rollouts.

A rollout's decisions are its actions, INVOKE or SKIP, and share the advantage of its penalised reward. Tokens have no
part in the gradient, greedy or sampled: no parameter of the trigger decides about them but through the decisions.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from memgen.backbone.prompt_cache import PromptCache
from memgen.config import TriggerConfig
from memgen.generation.requests import Decision
from memgen.memory.host import AdapterHost
from memgen.training.optimizing import Trainable
from memgen.training.reward.losses import clipped_surrogate, group_advantages, has_spread, sequence_weights
from memgen.training.reward.rollouts import Group, RolledTurn, Rollout
from memgen.training.trigger.forward import Points, read_points, recorded_decisions, trigger_logits
from memgen.training.trigger.penalty import penalised_rewards


@dataclass(frozen=True)
class ScoredGroup:
    """Rollouts of one item with their penalised rewards."""

    rollouts: tuple[Rollout, ...]
    rewards: tuple[float, ...]

    @property
    def can_be_learned_from(self) -> bool:
        """Whether rewards differ, some rollout has a decision, and some earned anything.

        Where all failed, what was woven made no difference to any reward. The price alone would teach to skip, at
        full strength, and on a hard task most groups are so.
        """
        decided = any(decisions_of(rollout) for rollout in self.rollouts)
        return has_spread(self.rewards) and decided and any(rollout.reward > 0 for rollout in self.rollouts)


@dataclass(frozen=True)
class TriggerPart:
    """Turns that are differentiated at once, with D decisions. Values are those of each decision, `(D,)`."""

    points: Points
    decisions: Tensor
    """1 for INVOKE."""
    sampled_logprobs: Tensor
    """Under the trigger that decided."""
    advantages: Tensor
    weights: Tensor
    """In the loss."""


@dataclass(frozen=True)
class TriggerUpdate:
    """What one optimizer step was like."""

    loss: float
    grad_norm: float
    """Before clipping of gradients."""
    clip_share: float
    """Share of the decisions whose gradient the bound on the ratio took away."""


def decisions_of(rollout: Rollout) -> list[Decision]:
    """All turns in order."""
    return [decision for turn in rollout.turns for decision in turn.decisions]


def penalise(groups: Sequence[Group], weight: float) -> list[ScoredGroup]:
    """Equation 8 over the whole batch: `p_bar` is that of all groups together."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    decisions = [[decision.invoked for decision in decisions_of(rollout)] for rollout in rollouts]
    rewards = iter(penalised_rewards(decisions, [rollout.reward for rollout in rollouts], weight))
    return [ScoredGroup(group.rollouts, tuple(next(rewards) for _ in group.rollouts)) for group in groups]


def make_parts(
    host: AdapterHost,
    memory: str,
    groups: Sequence[ScoredGroup],
    prompts: PromptCache,
    config: TriggerConfig,
    own: Collection[int] | None = None,
) -> list[TriggerPart]:
    """Everything about a batch of groups that stays the same over its optimizer steps.

    Args:
        groups: the groups of the whole step that can be learned from.
        own: places of the groups that are differentiated here; None is all. The others count in the weights.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    mine = [own is None or place in own for place, group in enumerate(groups) for _ in group.rollouts]
    # For `dr_grpo` any constant will do that does not follow from what was drawn.
    points = 1 + host.memories[memory].config.max_insertions
    lengths = [len(decisions_of(rollout)) for rollout in rollouts]
    weights = sequence_weights(lengths, config.loss, max_new_tokens=points).tolist()
    advantages = [
        advantage
        for group in groups
        for advantage in group_advantages(group.rewards, scale=config.loss != "dr_grpo").tolist()
    ]
    drawn = [
        (turn, advantage, weight)
        for rollout, advantage, weight, here in zip(rollouts, advantages, weights, mine, strict=True)
        for turn in rollout.turns
        if here and turn.decisions
    ]
    # In order, not by length: the samples of an item stand together and share what they read.
    batches = [drawn[n : n + config.batch_size] for n in range(0, len(drawn), config.batch_size)]
    return [_part(host, memory, batch, prompts) for batch in batches]


def update(
    host: AdapterHost, memory: str, trainable: Trainable, parts: Sequence[TriggerPart], config: TriggerConfig
) -> TriggerUpdate:
    """One optimizer step on all parts, of all devices.

    Raises:
        TrainingDiverged: loss or gradient is not finite.
    """
    trainable.zero_grad()
    total = clipped = decisions = 0.0
    for part in parts:
        logits = trigger_logits(host, memory, part.points, checkpointing=config.activation_checkpointing)
        both = logits.log_softmax(dim=-1)
        logprobs = both.gather(1, part.decisions[:, None]).squeeze(1)
        losses, cut = clipped_surrogate(
            logprobs, part.sampled_logprobs, part.advantages, eps_low=config.eps_low, eps_high=config.eps_high
        )
        if config.entropy_coefficient > 0:
            losses = losses + config.entropy_coefficient * (both.exp() * both).sum(dim=-1)
        loss = (part.weights * losses).sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        total += float(loss.detach())
        clipped += float(cut.sum())
        decisions += len(losses)
    total, grad_norm = trainable.step(total)
    clipped, decisions = trainable.devices.total(torch.tensor([clipped, decisions])).tolist()
    return TriggerUpdate(total, grad_norm, clipped / max(1.0, decisions))


def _part(
    host: AdapterHost, memory: str, drawn: Sequence[tuple[RolledTurn, float, float]], prompts: PromptCache
) -> TriggerPart:
    device = host.backbone.device
    turns = [turn for turn, _, _ in drawn]

    def of_decisions(values: Sequence[float]) -> Tensor:
        each = [value for turn, value in zip(turns, values, strict=True) for _ in turn.decisions]
        return torch.tensor(each, device=device)

    return TriggerPart(
        points=read_points(host, memory, turns, prompts=prompts),
        decisions=recorded_decisions(turns, device),
        sampled_logprobs=torch.tensor([_logprob(d) for turn in turns for d in turn.decisions], device=device),
        advantages=of_decisions([advantage for _, advantage, _ in drawn]),
        weights=of_decisions([weight for _, _, weight in drawn]),
    )


def _logprob(decision: Decision) -> float:
    """Log probability of what was decided, at temperature 1."""
    chosen = decision.probability if decision.invoked else 1.0 - decision.probability
    return math.log(max(chosen, 1e-30))
