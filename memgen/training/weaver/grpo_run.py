"""A run of weaver GRPO: what it carries from step to step, its reports, its checkpoints. Where groups come from is not
its business.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from memgen.config import GrpoConfig
from memgen.errors import ConfigError
from memgen.memory.host import AdapterHost
from memgen.training.devices import Devices, check_count
from memgen.training.forward import PrefixSource
from memgen.training.loop import Learner, run_steps
from memgen.training.optimizing import ParameterGroup, Trainable
from memgen.training.reward.losses import has_spread
from memgen.training.reward.rollouts import Failures, Group
from memgen.training.run_control import RunControl
from memgen.training.weaver.update import WeaverUpdate, make_parts, update


@dataclass(frozen=True)
class GrpoStep:
    """What one batch of rollouts was like, and what was learned from it."""

    step: int
    steps: int
    reward: float
    """Mean over all rollouts, skipped groups too."""
    groups: int
    groups_skipped: int
    """Without a spread of rewards."""
    tokens: int
    """Tokens of answers, over all rollouts."""
    invoked: float
    """Share of the decision points at which memory was woven; 0 if there was none."""
    loss: float
    """This and the following: means over the optimizer steps, 0 if there was none."""
    grad_norm: float
    clip_share: float
    kl: float
    seconds_left: float


@dataclass(frozen=True)
class GrpoReport:
    steps: int
    optimizer_steps: int
    rollouts: int
    groups: int
    groups_skipped: int
    tokens: int
    seconds: float
    rewards: tuple[float, ...]
    """Mean of each step."""
    losses: tuple[float, ...]
    flags: tuple[str, ...]
    """Signs that it did not learn, in plain words; empty if none."""
    failures: Failures
    """Rollouts whose environment or grader failed."""


@dataclass
class _Progress:
    """What a run has done so far; JSON in its checkpoints."""

    rewards: list[float]
    losses: list[float]
    rollouts: int = 0
    groups: int = 0
    groups_skipped: int = 0
    tokens: int = 0
    seconds: float = 0.0
    failures: Failures = field(default_factory=Failures)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "_Progress":
        return cls(**{**state, "failures": Failures(**state.get("failures", {}))})


GrpoBatch = tuple[list[Group], PrefixSource]
"""The groups of a step, the same on every device, and where their prompts are read."""


def run_grpo(
    host: AdapterHost,
    memory: str,
    config: GrpoConfig,
    collect: Callable[[int], GrpoBatch],
    *,
    keeps_start: bool,
    control: RunControl[GrpoStep],
) -> GrpoReport:
    """Train the weaver of the memory named `memory` in place, on the groups that `collect` returns for each step (from
    0).

    Args:
        keeps_start: some logprobs will be computed with the memory as it was at the start; a copy stays in the host.

    Raises:
        ConfigError: the memory's trigger never weaves, or a number of devices other than the config's.
        ArtifactCorrupt: the checkpoint is of another kind of run.
        TrainingDiverged: a loss or gradient is not finite.
        Cancelled: `control.should_stop` returned true, or `collect` raised it.
    """
    check_count(control.devices, config.devices)
    run = GrpoRun(host, memory, config, collect, control.devices, keeps_start=keeps_start)
    with run.start_kept():
        run_steps(run, config.steps, control)
    return run.report()


class GrpoRun(Learner[GrpoBatch, GrpoStep]):
    """What a run carries from step to step."""

    stop_note = " was learned from"

    def __init__(
        self,
        host: AdapterHost,
        memory: str,
        config: GrpoConfig,
        collect: Callable[[int], GrpoBatch],
        devices: Devices,
        *,
        keeps_start: bool,
    ) -> None:
        trained = host.memories[memory]
        if trained.config.trigger == "never" and trained.reader is None:
            raise ConfigError(f"the trigger of {memory!r} is 'never': no memory is woven, so no weaver can learn")
        lora = tuple(trained.weaver.parameters())
        self.trainable = Trainable(
            [
                ParameterGroup("weaver", lora, config.learning_rate),
                ParameterGroup("queries", tuple(trained.weaver_parameters()[len(lora) :]), config.query_learning_rate),
            ],
            lambda step: min(1.0, (step + 1) / max(1, config.warmup_steps)),
            max_grad_norm=config.max_grad_norm,
            weight_decay=config.weight_decay,
            devices=devices,
        )
        self.progress = _Progress([], [])
        self._collect = collect
        self._host, self._memory, self._config, self._devices = host, memory, config, devices
        self._start = f"{memory}@start" if keeps_start else None

    @contextmanager
    def start_kept(self) -> Iterator[None]:
        """Keep a copy of the memory as it is now in the host, if the run needs its logprobs."""
        if self._start is None:
            yield
            return
        self._host.create(self._start, self._host.memories[self._memory].config)
        self._host.copy(self._memory, self._start)
        try:
            yield
        finally:
            self._host.remove(self._start)

    @property
    def steps_done(self) -> int:
        return len(self.progress.rewards)

    @property
    def seconds(self) -> float:
        return self.progress.seconds

    @seconds.setter
    def seconds(self, value: float) -> None:
        self.progress.seconds = value

    def resume(self, path: Path) -> None:
        """Go on from a saved state."""
        state, kept = self.trainable.resume(path)
        self.progress = _Progress.from_state(state)
        for name, tensor in self._kept().items():
            tensor.copy_(kept[name])

    def report(self) -> GrpoReport:
        progress, trainable = self.progress, self.trainable
        found = [f"no weight changed: {name}" for name in trainable.unchanged()]
        if progress.groups_skipped == progress.groups:
            found.append("no group had a spread of rewards: all advantages were zero")
        elif trainable.steps == 0:
            found.append("no memory was woven into any turn of a group with a spread of rewards")
        return GrpoReport(
            steps=len(progress.rewards),
            optimizer_steps=trainable.steps,
            rollouts=progress.rollouts,
            groups=progress.groups,
            groups_skipped=progress.groups_skipped,
            tokens=progress.tokens,
            seconds=progress.seconds,
            rewards=tuple(progress.rewards),
            losses=tuple(progress.losses),
            flags=(*found, *progress.failures.flags(progress.rollouts)),
            failures=progress.failures,
        )

    def collect(self, step: int) -> GrpoBatch:
        """The groups that a step learns from."""
        return self._collect(step)

    def learn(self, batch: GrpoBatch) -> GrpoStep:
        """Take the step's optimizer steps."""
        groups, prompts = batch
        differing = [place for place, group in enumerate(groups) if has_spread(group.rewards)]
        spread, share = [groups[place] for place in differing], self._devices.share(len(groups))
        own = [number for number, place in enumerate(differing) if place in share]
        parts = make_parts(self._host, self._memory, self._start, spread, prompts, self._config, own)
        iterations = self._config.iterations if self._devices.any(bool(parts)) else 0
        updates = [
            update(self._host, self._memory, self.trainable, parts, prompts, self._config) for _ in range(iterations)
        ]
        return self._note(groups, len(groups) - len(spread), updates)

    def timed(self, report: GrpoStep, elapsed: float, seconds_left: float) -> GrpoStep:
        return replace(report, seconds_left=seconds_left)

    def save(self, path: Path) -> None:
        """Write weights, the optimizer's state and the progress."""
        self.trainable.save(path, asdict(self.progress), self._kept())

    def _note(self, groups: Sequence[Group], skipped: int, updates: Sequence[WeaverUpdate]) -> GrpoStep:
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        decisions = [d.invoked for rollout in rollouts for turn in rollout.turns for d in turn.decisions]
        report = GrpoStep(
            step=self.steps_done + 1,
            steps=self._config.steps,
            reward=fmean(rollout.reward for rollout in rollouts),
            groups=len(groups),
            groups_skipped=skipped,
            tokens=sum(rollout.tokens for rollout in rollouts),
            invoked=fmean(decisions) if decisions else 0.0,
            loss=_mean([one.loss for one in updates]),
            grad_norm=_mean([one.grad_norm for one in updates]),
            clip_share=_mean([one.clip_share for one in updates]),
            kl=_mean([one.kl for one in updates]),
            seconds_left=0.0,
        )
        self.progress.rewards.append(report.reward)
        self.progress.losses.append(report.loss)
        self.progress.rollouts += len(rollouts)
        self.progress.failures.note(rollouts)
        self.progress.groups += report.groups
        self.progress.groups_skipped += skipped
        self.progress.tokens += report.tokens
        return report

    def _kept(self) -> dict[str, Tensor]:
        """The start's weights: a run that goes on must not take the present ones for them."""
        if self._start is None:
            return {}
        parameters = self._host.memories[self._start].weaver_parameters()
        return {f"start.{number}": parameter.detach() for number, parameter in enumerate(parameters)}


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
