"""Training of a trigger from reward by GRPO (MemGen, arXiv 2509.24704, section 3.2; the algorithm: arXiv 2402.03300).

Every step plays items with decisions drawn from the trigger as it is, takes the price of needless insertions off the
rewards (`memgen.training.trigger_penalty`), compares each rollout with the others of its item, and takes one or more
optimizer steps on the decisions. Base and weaver stay as they are.

A fresh trigger weaves at every point with probability one half, whatever it reads: every rollout is an experiment.
Tokens are greedy by default, so that the rewards of an item differ by its decisions alone.

What becomes of needless insertions depends on the penalty. Where a group's rewards do not differ, the price alone
does; divided by the group's standard deviation (`grpo`, `bnpo`) even a small one teaches at full strength. Without a
penalty such groups are skipped, and the trigger stays as undecided there as it was, or follows what it learned
elsewhere.

Items and seeds depend only on the step, so a run killed at any step goes on from its checkpoint as if it had not been.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from memgen.config import TriggerConfig
from memgen.errors import ArtifactCorrupt, ConfigError, NothingToTrain
from memgen.evaluation.invocations import InvocationRate, rate_of_counts
from memgen.host import AdapterHost
from memgen.prompts import PromptCache
from memgen.sampling import Sampling
from memgen.tasks.task import TaskItem
from memgen.training.optimizing import ParameterGroup, Trainable
from memgen.training.reward_loop import drawn_of_step, run_steps
from memgen.training.rollouts import Group, Rollout, roll_out, seed_of
from memgen.training.trigger_update import Update, decisions_of, make_parts, penalise, update

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
    invoked: float
    """Share of the decision points at which memory was woven; 0 if there was none."""
    entropy: float
    """Mean of the decisions', nats; ln 2 = 0.693 is undecided."""
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
    """Of the last fifth of the steps, as drawn."""
    flags: tuple[str, ...]
    """Signs that it did not learn, in plain words; empty if none."""


@dataclass
class _Progress:
    """What a run has done so far; JSON in its checkpoints."""

    rewards: list[float]
    invoked: list[float]
    entropies: list[float]
    counts: list[list[tuple[str, int, int]]]
    """Of each step's rollouts: task, asked, invoked."""
    groups: int = 0
    groups_skipped: int = 0
    seconds: float = 0.0


def train_trigger(
    host: AdapterHost,
    memory: str,
    items: Mapping[str, Sequence[TaskItem]],
    config: TriggerConfig,
    *,
    checkpoint: Path | None = None,
    checkpoint_interval_seconds: float = 30.0,
    on_checkpoint: Callable[[Path], None] | None = None,
    on_step: Callable[[TriggerStep], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TriggerReport:
    """Train the trigger of the memory named `memory` in place, by playing items with it.

    Args:
        items: by task. A step draws from all of them together, so a task counts by its number of items. Give tasks
            that the memory was not made for too: a trigger that never saw one knows nothing about where to skip.
        checkpoint: file to save the state to while training, and to go on from if it exists.
        on_checkpoint: called with that file each time it was written.
        should_stop: asked while rollouts are drawn; true ends the run with the state of the last whole step saved.

    Raises:
        NothingToTrain: there are no items.
        ConfigError: the memory's trigger is not learned.
        TrainingDiverged: a loss or gradient is not finite.
        Cancelled: `should_stop` said so.
    """
    named = [(task, item) for task, some in items.items() for item in some]
    if not named:
        raise NothingToTrain("there are no items to play; give at least one")

    def report_step(report: TriggerStep, seconds_left: float) -> None:
        if on_step:
            on_step(replace(report, seconds_left=seconds_left))

    run = _Run(host, memory, named, config, should_stop)
    run.go_on_from(checkpoint)
    run_steps(
        run,
        config.steps,
        checkpoint=checkpoint,
        checkpoint_interval_seconds=checkpoint_interval_seconds,
        on_checkpoint=on_checkpoint,
        on_step=report_step,
        should_stop=should_stop,
    )
    return run.report()


Batch = tuple[list[Group], PromptCache]
"""The groups of a step, and where their prompts were read."""


class _Run:
    """What a run carries from step to step."""

    def __init__(
        self,
        host: AdapterHost,
        memory: str,
        named: Sequence[tuple[str, TaskItem]],
        config: TriggerConfig,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        """`named` are the items, each with its task's name."""
        trained = host.memories[memory]
        if not trained.trigger_parameters():
            raise ConfigError(
                f"the trigger of {memory!r} is {trained.config.trigger!r} and has nothing to learn; make the memory "
                "with trigger 'lora' or 'head'"
            )
        lora = tuple(trained.trigger.parameters()) if trained.trigger is not None else ()
        head = tuple(trained.trigger_head.parameters())
        groups = [ParameterGroup("trigger", lora, config.learning_rate)] if lora else []
        self.trainable = Trainable(
            [*groups, ParameterGroup("trigger head", head, config.head_learning_rate)],
            lambda step: min(1.0, (step + 1) / max(1, config.warmup_steps)),
            max_grad_norm=config.max_grad_norm,
            weight_decay=config.weight_decay,
        )
        self.progress = _Progress([], [], [], [])
        self._host, self._memory, self._config = host, memory, config
        self._named, self._should_stop = named, should_stop

    @property
    def steps_done(self) -> int:
        return len(self.progress.rewards)

    @property
    def seconds(self) -> float:
        return self.progress.seconds

    @seconds.setter
    def seconds(self, value: float) -> None:
        self.progress.seconds = value

    def play(self, step: int) -> Batch:
        """The groups of a step, each with its task's name."""
        config = self._config
        prompts = PromptCache(self._host.backbone.decoder, config.prompt_cache_bytes)
        places = drawn_of_step(len(self._named), config.items_per_step, config.seed, step)
        chosen = [self._named[n] for n in places]
        groups = roll_out(
            self._host,
            self._memory,
            [item for _, item in chosen],
            Sampling(config.max_new_tokens, temperature=config.temperature, trigger_temperature=1.0),
            group_size=config.group_size,
            seed=seed_of(config.seed, step),
            prompts=prompts,
            batch_size=config.rollout_batch_size,
            should_stop=self._should_stop,
        )
        tasks = [task for task, _ in chosen]
        return [_of_task(group, task) for group, task in zip(groups, tasks, strict=True)], prompts

    def learn(self, batch: Batch) -> TriggerStep:
        """Take the step's optimizer steps."""
        groups, prompts = batch
        config, scored = self._config, penalise(groups, self._config.penalty)
        teaching = [group for group in scored if group.can_teach]
        updates: list[Update] = []
        if teaching:
            parts = make_parts(self._host, self._memory, teaching, prompts, config)
            updates = [
                update(self._host, self._memory, self.trainable, parts, config) for _ in range(config.iterations)
            ]
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        self._note(rollouts, len(groups), len(groups) - len(teaching))
        return TriggerStep(
            step=len(self.progress.rewards),
            steps=config.steps,
            reward=self.progress.rewards[-1],
            penalised_reward=fmean(reward for group in scored for reward in group.rewards),
            groups=len(groups),
            groups_skipped=len(groups) - len(teaching),
            asked=sum(asked for _, asked, _ in self.progress.counts[-1]),
            invoked=self.progress.invoked[-1],
            entropy=self.progress.entropies[-1],
            loss=_mean([one.loss for one in updates]),
            grad_norm=_mean([one.grad_norm for one in updates]),
            clip_share=_mean([one.clip_share for one in updates]),
            seconds_left=0.0,
        )

    def go_on_from(self, checkpoint: Path | None) -> None:
        """Take up a saved state, if there is one."""
        if checkpoint is None or not checkpoint.is_file():
            return
        state, _ = self.trainable.resume(checkpoint)
        try:
            self.progress = _Progress(**state)
        except TypeError as error:
            raise ArtifactCorrupt(
                f"checkpoint {checkpoint} is of another kind of run: {error}; delete it to start over"
            ) from error

    def save(self, path: Path) -> None:
        """Write weights, the optimizer's state and the progress."""
        self.trainable.save(path, asdict(self.progress))

    def report(self) -> TriggerReport:
        progress = self.progress
        counts = [one for step in progress.counts[-_window(len(progress.counts)) :] for one in step]
        tasks = dict.fromkeys(task for task, _, _ in counts)
        by_task = {
            name: rate_of_counts([(asked, invoked) for task, asked, invoked in counts if task == name])
            for name in tasks
        }
        return TriggerReport(
            steps=len(progress.rewards),
            optimizer_steps=self.trainable.steps,
            rollouts=sum(len(step) for step in progress.counts),
            groups=progress.groups,
            groups_skipped=progress.groups_skipped,
            seconds=progress.seconds,
            rewards=tuple(progress.rewards),
            invoked=tuple(progress.invoked),
            by_task=by_task,
            flags=self._flags(rate_of_counts([(asked, invoked) for _, asked, invoked in counts])),
        )

    def _note(self, rollouts: Sequence[Rollout], groups: int, skipped: int) -> None:
        progress = self.progress
        decisions = [decision for rollout in rollouts for decision in decisions_of(rollout)]
        progress.rewards.append(fmean(rollout.reward for rollout in rollouts))
        progress.invoked.append(_mean([decision.invoked for decision in decisions]))
        progress.entropies.append(_mean([entropy(decision.probability) for decision in decisions]))
        progress.counts.append(
            [(r.task, len(asked), sum(d.invoked for d in asked)) for r in rollouts for asked in [decisions_of(r)]]
        )
        progress.groups += groups
        progress.groups_skipped += skipped

    def _flags(self, last: InvocationRate) -> tuple[str, ...]:
        progress = self.progress
        found = [f"no weight changed: {name}" for name in self.trainable.unchanged()]
        if progress.groups_skipped == progress.groups:
            found.append("no group had a spread of penalised rewards: all advantages were zero")
        if last.rate is None:
            found.append("the trigger was never asked")
        elif last.rate >= _SETTLED:
            found.append(f"the trigger always fires: {last.rate:.1%} of the last {last.asked} decisions")
        elif last.rate <= 1 - _SETTLED:
            found.append(f"the trigger never fires: {last.rate:.1%} of the last {last.asked} decisions")
        elif (doubt := fmean(progress.entropies[-_window(len(progress.entropies)) :])) > _UNDECIDED:
            found.append(f"the trigger is undecided: {doubt:.3f} of {math.log(2):.3f} nats of entropy at last")
        return tuple(found)


def entropy(probability: float) -> float:
    """Of one decision, nats. For 0.5: ln 2 = 0.6931; for 0 and 1: 0."""
    return -sum(p * math.log(p) for p in (probability, 1.0 - probability) if p > 0.0)


def _of_task(group: Group, task: str) -> Group:
    return Group(tuple(replace(rollout, task=task) for rollout in group.rollouts))


def _window(steps: int) -> int:
    return max(1, steps // 5)


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
