"""What a run of trigger GRPO was like: its progress, the report of each step, and signs that it did not learn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from memgen.generation.invocations import InvocationRate, rate_of_counts
from memgen.training.optimizing import Trainable
from memgen.training.reward.rollouts import Failures, Rollout
from memgen.training.trigger.update import decisions_of

_SETTLED = 0.98
"""Share of decisions alike from which a trigger counts as always or never firing."""
_UNDECIDED = 0.97 * math.log(2)
"""Mean entropy of decisions, nats, above which a trigger has not made up its mind: probabilities 0.4 to 0.6."""


@dataclass(frozen=True)
class TriggerStep:
    """What one batch of rollouts was like, and what was learned from it."""

    step: int
    steps: int
    reward: float
    """Mean over all rollouts, before the penalty; skipped groups too."""
    penalised_reward: float
    groups: int
    groups_skipped: int
    """Without a spread of penalised rewards."""
    asked: int
    """Decision points of all rollouts."""
    invoked: float
    """Share of the decision points at which memory was woven; 0 if there was none."""
    entropy: float
    """Mean entropy of the decisions, nats; ln 2 = 0.693 is undecided."""
    loss: float
    """This and the following: means over the optimizer steps, 0 if there was none."""
    grad_norm: float
    clip_share: float
    seconds_left: float


@dataclass(frozen=True)
class TriggerReport:
    steps: int
    optimizer_steps: int
    rollouts: int
    groups: int
    groups_skipped: int
    seconds: float
    rewards: tuple[float, ...]
    """Mean of each step, before the penalty."""
    invoked: tuple[float, ...]
    """Share of each step's decisions."""
    by_task: dict[str, InvocationRate]
    """Rates of the last fifth of the steps, as drawn."""
    flags: tuple[str, ...]
    """Signs that it did not learn, in plain words; empty if none."""
    failures: Failures
    """Rollouts whose environment or grader failed."""


@dataclass
class Progress:
    """What a run has done so far; JSON in its checkpoints."""

    rewards: list[float]
    invoked: list[float]
    entropies: list[float]
    counts: list[list[tuple[str, int, int]]]
    """For each step, (task, decision points, decisions to INVOKE) of its rollouts."""
    groups: int = 0
    groups_skipped: int = 0
    seconds: float = 0.0
    failures: Failures = field(default_factory=Failures)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Progress":
        return cls(**{**state, "failures": Failures(**state.get("failures", {}))})

    def note(self, rollouts: Sequence[Rollout], groups: int, skipped: int) -> None:
        """Add the rollouts of a step, `skipped` of whose groups were not learned from."""
        decisions = [decision for rollout in rollouts for decision in decisions_of(rollout)]
        self.rewards.append(fmean(rollout.reward for rollout in rollouts))
        self.invoked.append(mean([decision.invoked for decision in decisions]))
        self.entropies.append(mean([entropy(decision.probability) for decision in decisions]))
        self.counts.append(
            [(r.task, len(points), sum(d.invoked for d in points)) for r in rollouts for points in [decisions_of(r)]]
        )
        self.failures.note(rollouts)
        self.groups += groups
        self.groups_skipped += skipped

    def report(self, trainable: Trainable) -> TriggerReport:
        counts = [one for step in self.counts[-_window(len(self.counts)) :] for one in step]
        tasks = dict.fromkeys(task for task, _, _ in counts)
        by_task = {
            name: rate_of_counts([(points, invoked) for task, points, invoked in counts if task == name])
            for name in tasks
        }
        return TriggerReport(
            steps=len(self.rewards),
            optimizer_steps=trainable.steps,
            rollouts=sum(len(step) for step in self.counts),
            groups=self.groups,
            groups_skipped=self.groups_skipped,
            seconds=self.seconds,
            rewards=tuple(self.rewards),
            invoked=tuple(self.invoked),
            by_task=by_task,
            flags=self._flags(trainable, rate_of_counts([(points, invoked) for _, points, invoked in counts])),
            failures=self.failures,
        )

    def _flags(self, trainable: Trainable, last: InvocationRate) -> tuple[str, ...]:
        found = [f"no weight changed: {name}" for name in trainable.unchanged()]
        if self.groups_skipped == self.groups:
            found.append("no group was learned from: each had equal penalised rewards, or earned nothing")
        if last.rate is None:
            found.append("the trigger made no decision")
        elif last.rate >= _SETTLED:
            found.append(f"the trigger always fires: {last.rate:.1%} of the last {last.asked} decisions")
        elif last.rate <= 1 - _SETTLED:
            found.append(f"the trigger never fires: {last.rate:.1%} of the last {last.asked} decisions")
        elif (doubt := fmean(self.entropies[-_window(len(self.entropies)) :])) > _UNDECIDED:
            found.append(f"the trigger is undecided: {doubt:.3f} of {math.log(2):.3f} nats of entropy at last")
        return (*found, *self.failures.flags(sum(len(step) for step in self.counts)))


def entropy(probability: float) -> float:
    """Entropy of one decision, nats. For 0.5: ln 2 = 0.6931; for 0 and 1: 0."""
    return -sum(p * math.log(p) for p in (probability, 1.0 - probability) if p > 0.0)


def _window(steps: int) -> int:
    return max(1, steps // 5)


def mean(values: Sequence[float]) -> float:
    """0 of none."""
    return fmean(values) if values else 0.0
