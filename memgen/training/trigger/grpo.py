"""Training of a trigger from reward by GRPO (MemGen, arXiv 2509.24704, section 3.2; the algorithm: arXiv 2402.03300).

Every step plays items with decisions drawn from the trigger as it is, takes the price of needless insertions off the
rewards (`memgen.training.trigger.penalty`), compares each rollout with the others of its item, and takes one or more
optimizer steps on the decisions. Base and weaver stay as they are.

A fresh trigger weaves at every point with probability one half, whatever it reads: every rollout is an experiment.
Tokens are greedy by default, so that the rewards of an item differ by its decisions alone.

What becomes of needless insertions depends on the penalty. Where a group's rewards do not differ, the price alone
does; divided by the group's standard deviation (`grpo`, `bnpo`) even a small one teaches at full strength. Without a
penalty such groups are skipped, and the trigger stays as undecided there as it was, or follows what it learned
elsewhere. A group in which every rollout failed is skipped in any case: it does not show that memory was needless.

Items and seeds depend only on the step, so a run killed at any step goes on from its checkpoint as if it had not been.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean

from memgen.backbone.prompt_cache import PromptCache
from memgen.config import TriggerConfig
from memgen.errors import ConfigError, NothingToTrain
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.task import TaskItem
from memgen.training.devices import check_count
from memgen.training.loop import Learner, run_steps
from memgen.training.optimizing import ParameterGroup, Trainable
from memgen.training.reward.rollouts import Group, places_of_step, play_step
from memgen.training.run_control import UNWATCHED, RunControl
from memgen.training.trigger.report import Progress, TriggerReport, TriggerStep, mean
from memgen.training.trigger.update import TriggerUpdate, make_parts, penalise, update


def train_trigger(
    host: AdapterHost,
    memory: str,
    items: Mapping[str, Sequence[TaskItem]],
    config: TriggerConfig,
    *,
    control: RunControl[TriggerStep] = UNWATCHED,
) -> TriggerReport:
    """Train the trigger of the memory named `memory` in place, by playing items with it.

    Args:
        items: by task. A step draws from all of them together, so a task counts by its number of items. Include tasks
            that the memory was not made for too: a trigger that never saw one knows nothing about where to skip.

    Raises:
        NothingToTrain: there are no items.
        ConfigError: the memory's trigger is not learned, or a number of devices other than the config's.
        TrainingDiverged: a loss or gradient is not finite.
        Cancelled: `control.should_stop` returned true.
    """
    named = [(task, item) for task, some in items.items() for item in some]
    if not named:
        raise NothingToTrain("there are no items to play; give at least one")
    check_count(control.devices, config.devices)
    run = TriggerRun(host, memory, named, config, control)
    run_steps(run, config.steps, control)
    return run.report()


TriggerBatch = tuple[list[Group], PromptCache]
"""The groups of a step, the same on every device, and where those that were played here had their prompts read."""


class TriggerRun(Learner[TriggerBatch, TriggerStep]):
    """What a run carries from step to step."""

    stop_note = " was learned from"

    def __init__(
        self,
        host: AdapterHost,
        memory: str,
        named: Sequence[tuple[str, TaskItem]],
        config: TriggerConfig,
        control: RunControl[TriggerStep],
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
            devices=control.devices,
        )
        self.progress = Progress([], [], [], [])
        self._host, self._memory, self._config = host, memory, config
        self._named, self._control = named, control

    @property
    def steps_done(self) -> int:
        return len(self.progress.rewards)

    @property
    def seconds(self) -> float:
        return self.progress.seconds

    @seconds.setter
    def seconds(self, value: float) -> None:
        self.progress.seconds = value

    def collect(self, step: int) -> TriggerBatch:
        """The groups of a step, each with its task's name."""
        config = self._config
        chosen = [self._named[n] for n in places_of_step(len(self._named), config.items_per_step, config.seed, step)]
        sampling = Sampling(config.max_new_tokens, temperature=config.temperature, trigger_temperature=1.0)
        items = [item for _, item in chosen]
        groups, prompts = play_step(self._host, self._memory, items, sampling, config, step, self._control)
        return [group.of_task(task) for group, (task, _) in zip(groups, chosen, strict=True)], prompts

    def learn(self, batch: TriggerBatch) -> TriggerStep:
        """Take the step's optimizer steps."""
        groups, prompts = batch
        config, scored = self._config, penalise(groups, self._config.penalty)
        able = [place for place, group in enumerate(scored) if group.can_be_learned_from]
        learned_from, share = [scored[place] for place in able], self._control.devices.share(len(groups))
        updates: list[TriggerUpdate] = []
        if learned_from:
            own = [number for number, place in enumerate(able) if place in share]
            parts = make_parts(self._host, self._memory, learned_from, prompts, config, own)
            updates = [
                update(self._host, self._memory, self.trainable, parts, config) for _ in range(config.iterations)
            ]
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        self.progress.note(rollouts, len(groups), len(groups) - len(learned_from))
        return TriggerStep(
            step=len(self.progress.rewards),
            steps=config.steps,
            reward=self.progress.rewards[-1],
            penalised_reward=fmean(reward for group in scored for reward in group.rewards),
            groups=len(groups),
            groups_skipped=len(groups) - len(learned_from),
            asked=sum(points for _, points, _ in self.progress.counts[-1]),
            invoked=self.progress.invoked[-1],
            entropy=self.progress.entropies[-1],
            loss=mean([one.loss for one in updates]),
            grad_norm=mean([one.grad_norm for one in updates]),
            clip_share=mean([one.clip_share for one in updates]),
            seconds_left=0.0,
        )

    def timed(self, report: TriggerStep, elapsed: float, seconds_left: float) -> TriggerStep:
        return replace(report, seconds_left=seconds_left)

    def resume(self, path: Path) -> None:
        """Go on from a saved state."""
        state, _ = self.trainable.resume(path)
        self.progress = Progress.from_state(state)

    def save(self, path: Path) -> None:
        """Write weights, the optimizer's state and the progress."""
        self.trainable.save(path, asdict(self.progress))

    def report(self) -> TriggerReport:
        return self.progress.report(self.trainable)
