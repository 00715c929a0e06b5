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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean

from memgen.backbone.prompt_cache import PromptCache
from memgen.config import TriggerConfig
from memgen.errors import ArtifactCorrupt, ConfigError, NothingToTrain
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.task import TaskItem
from memgen.training.devices import ALONE, Devices, check_count
from memgen.training.optimizing import ParameterGroup, Trainable
from memgen.training.reward.loop import drawn_of_step, play_together, run_steps
from memgen.training.reward.rollouts import Group, roll_out, seed_of
from memgen.training.trigger.report import Progress, TriggerReport, TriggerStep, mean
from memgen.training.trigger.update import Update, make_parts, penalise, update


def train_trigger(
    host: AdapterHost,
    memory: str,
    items: Mapping[str, Sequence[TaskItem]],
    config: TriggerConfig,
    *,
    devices: Devices = ALONE,
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
        devices: of the processes that all call this with equal arguments and equal weights
            (`memgen.training.several_devices` starts them); the first one saves and reports.
        checkpoint: file to save the state to while training, and to go on from if it exists.
        on_checkpoint: called with that file each time it was written.
        should_stop: asked while rollouts are drawn; true ends the run with the state of the last whole step saved.

    Raises:
        NothingToTrain: there are no items.
        ConfigError: the memory's trigger is not learned, or a number of devices other than the config's.
        TrainingDiverged: a loss or gradient is not finite.
        Cancelled: `should_stop` said so.
    """
    named = [(task, item) for task, some in items.items() for item in some]
    if not named:
        raise NothingToTrain("there are no items to play; give at least one")

    def report_step(report: TriggerStep, seconds_left: float) -> None:
        if on_step:
            on_step(replace(report, seconds_left=seconds_left))

    check_count(devices, config.devices)
    run = _Run(host, memory, named, config, devices, should_stop)
    run.go_on_from(checkpoint)
    run_steps(
        run,
        config.steps,
        checkpoint=checkpoint,
        checkpoint_interval_seconds=checkpoint_interval_seconds,
        on_checkpoint=on_checkpoint,
        on_step=report_step,
        should_stop=should_stop,
        devices=devices,
    )
    return run.report()


Batch = tuple[list[Group], PromptCache]
"""The groups of a step, the same on every device, and where those that were played here had their prompts read."""


class _Run:
    """What a run carries from step to step."""

    def __init__(
        self,
        host: AdapterHost,
        memory: str,
        named: Sequence[tuple[str, TaskItem]],
        config: TriggerConfig,
        devices: Devices,
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
            devices=devices,
        )
        self.progress = Progress([], [], [], [])
        self._host, self._memory, self._config = host, memory, config
        self._named, self._devices, self._should_stop = named, devices, should_stop

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

        def play(share: range) -> list[Group]:
            return roll_out(
                self._host,
                self._memory,
                [chosen[place][1] for place in share],
                Sampling(config.max_new_tokens, temperature=config.temperature, trigger_temperature=1.0),
                group_size=config.group_size,
                seed=seed_of(config.seed, step),
                first=share.start,
                prompts=prompts,
                batch_size=config.rollout_batch_size,
                should_stop=self._should_stop,
            )

        groups = play_together(self._devices, len(chosen), play)
        tasks = [task for task, _ in chosen]
        return [_of_task(group, task) for group, task in zip(groups, tasks, strict=True)], prompts

    def learn(self, batch: Batch) -> TriggerStep:
        """Take the step's optimizer steps."""
        groups, prompts = batch
        config, scored = self._config, penalise(groups, self._config.penalty)
        able = [place for place, group in enumerate(scored) if group.can_teach]
        teaching, share = [scored[place] for place in able], self._devices.share(len(groups))
        updates: list[Update] = []
        if teaching:
            own = [number for number, place in enumerate(able) if place in share]
            parts = make_parts(self._host, self._memory, teaching, prompts, config, own)
            updates = [
                update(self._host, self._memory, self.trainable, parts, config) for _ in range(config.iterations)
            ]
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        self.progress.note(rollouts, len(groups), len(groups) - len(teaching))
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
            loss=mean([one.loss for one in updates]),
            grad_norm=mean([one.grad_norm for one in updates]),
            clip_share=mean([one.clip_share for one in updates]),
            seconds_left=0.0,
        )

    def go_on_from(self, checkpoint: Path | None) -> None:
        """Take up a saved state, if there is one."""
        if checkpoint is None or not checkpoint.is_file():
            return
        state, _ = self.trainable.resume(checkpoint)
        try:
            self.progress = Progress(**state)
        except TypeError as error:
            raise ArtifactCorrupt(
                f"checkpoint {checkpoint} is of another kind of run: {error}; delete it to start over"
            ) from error

    def save(self, path: Path) -> None:
        """Write weights, the optimizer's state and the progress."""
        self.trainable.save(path, asdict(self.progress))

    def report(self) -> TriggerReport:
        return self.progress.report(self.trainable)


def _of_task(group: Group, task: str) -> Group:
    return Group(tuple(replace(rollout, task=task) for rollout in group.rollouts))
