"""Supervised training of a weaver on the frozen base (MemGen, section 3.3; AdamW, linear warmup, cosine decay).

Data order depends only on the seed and the step, so a run killed at any step goes on from its checkpoint as if it had
not been. Two learning rates: LoRA factors, and everything else (query latents with norm and scale, projections). A
weaver that was never trained starts from its data (`memgen.training.weaver.query_start`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from memgen.artifacts.report import TrainingReport
from memgen.backbone.prompt_cache import TokenIds
from memgen.config import TrainingConfig
from memgen.errors import ConfigError, NothingToTrain
from memgen.memory.host import AdapterHost
from memgen.training.batches import batch_of_step, parts_of_batch
from memgen.training.devices import Devices, check_count
from memgen.training.examples import Example, ExampleSet, hold_out
from memgen.training.forward import PrefixStore, gathered, supervised_nll, texts_read
from memgen.training.loop import Learner, run_steps
from memgen.training.losses import mean_by_example, weighted_mean
from memgen.training.optimizing import ParameterGroup, StepReport, Trainable
from memgen.training.run_control import UNWATCHED, RunControl
from memgen.training.weaver.early_stopping import EarlyStopping
from memgen.training.weaver.query_start import start_from_answers


class SftRun(Learner[list[Example], StepReport]):
    """What a run carries from step to step."""

    def __init__(
        self,
        host: AdapterHost,
        memory: str,
        examples: Sequence[Example],
        held_out: Sequence[Example],
        config: TrainingConfig,
        devices: Devices,
    ) -> None:
        trained = host.memories[memory]
        if config.query_start == "answers" and trained.config.form == "cache" and trained.has_untrained_weaver:
            start_from_answers(trained, host.backbone, examples, config.seed)
        lora = tuple(trained.weaver.parameters())
        others = tuple(trained.weaver_parameters()[len(lora) :])
        self.host, self.memory, self.config, self.devices = host, memory, config, devices
        self.examples, self.held_out = examples, held_out
        self.trainable = Trainable(
            (
                ParameterGroup("LoRA factors", lora, config.learning_rate),
                ParameterGroup("query latents", others, config.query_learning_rate),
            ),
            lambda step: warmed_cosine(step, config),
            max_grad_norm=config.max_grad_norm,
            weight_decay=config.weight_decay,
            devices=devices,
        )
        self.stopping = EarlyStopping(config.patience)
        self.prefixes = PrefixStore(host.backbone, config.prefix_cache_bytes, self._prompts())
        self.losses: list[float] = []
        self.tokens = self._tokens_before = 0
        self.seconds = 0.0

    @property
    def steps_done(self) -> int:
        return self.trainable.steps

    @property
    def is_over(self) -> bool:
        return self.stopping.over

    def begin(self) -> None:
        """Measure the held-out loss of the weights that the run starts with, unless it was measured before."""
        if self.held_out and not self.stopping.looks:
            self.look()

    def collect(self, step: int) -> list[Example]:
        return batch_of_step(self.examples, self.config, step)

    def learn(self, batch: list[Example]) -> StepReport:
        """Take one optimizer step, and look at the held-out examples if it is their turn."""
        whole, part = sum(example.weight for example in batch), 0.0
        self.trainable.zero_grad()
        for shards in parts_of_batch(batch, self.config.accumulate_steps, self.devices.count):
            loss = self._loss(shards[self.devices.rank], whole)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            part += float(loss.detach())
        loss_of_step, grad_norm = self.trainable.step(part)
        self.losses.append(loss_of_step)
        self.tokens += sum(example.tokens for example in batch)
        step, steps = self.trainable.steps, self.config.steps
        looks = bool(self.held_out) and (step % self.config.validate_every == 0 or step == steps)
        if looks:
            self.look()
        return StepReport(
            step=step,
            steps=steps,
            loss=loss_of_step,
            grad_norm=grad_norm,
            tokens_per_second=0.0,
            seconds_left=0.0,
            held_out_loss=self.stopping.looks[-1][1] if looks else None,
        )

    def timed(self, report: StepReport, elapsed: float, seconds_left: float) -> StepReport:
        tokens = self.tokens - self._tokens_before
        return replace(report, tokens_per_second=tokens / elapsed, seconds_left=seconds_left)

    @torch.no_grad()
    def look(self) -> None:
        """The loss of the held-out examples with the weights as they are."""
        whole = sum(example.weight for example in self.held_out)
        mine = [self._loss(shards[self.devices.rank], whole) for shards in self._looks() if shards[self.devices.rank]]
        total = torch.stack([torch.zeros((), device=self.host.backbone.device), *mine]).sum()
        self.stopping.look(self.trainable, float(self.devices.total(total)))

    def save(self, path: Path) -> None:
        state = {"losses": self.losses, "tokens": self.tokens, "seconds": self.seconds, "looks": self.stopping.looks}
        self.trainable.save(path, state, self.stopping.kept())

    def resume(self, path: Path) -> None:
        state, kept = self.trainable.resume(path)
        self.losses, self.tokens, self.seconds = list(state["losses"]), int(state["tokens"]), float(state["seconds"])
        self._tokens_before = self.tokens
        self.stopping.resume(state["looks"], kept)

    def _loss(self, shard: Sequence[Example], whole: float) -> Tensor:
        """This shard's part of the weighted mean over examples of their mean token loss."""
        checkpointing = self.config.activation_checkpointing
        nll, rows = supervised_nll(self.host, self.memory, shard, self.prefixes, checkpointing=checkpointing)
        weights = torch.tensor([example.weight for example in shard], device=nll.device)
        return weighted_mean(mean_by_example(nll, rows, len(shard)), weights, whole)

    def _looks(self) -> Iterator[list[Sequence[Example]]]:
        """The held-out examples as they are read: by batch, then by device."""
        size = max(self.config.batch_size // self.config.accumulate_steps, 1)
        for start in range(0, len(self.held_out), size):
            yield from parts_of_batch(self.held_out[start : start + size], 1, self.devices.count)

    def _prompts(self) -> Iterator[list[TokenIds]]:
        """What the base reads in front of held-out examples, then of some steps' at once, until every one was seen."""
        steps = min(self.config.steps, math.ceil(len(self.examples) / self.config.batch_size))
        read = self.host.memories[self.memory].config
        for shards in self._looks():
            yield from (texts_read(shard, read) for shard in shards)
        batches = (batch_of_step(self.examples, self.config, step) for step in range(steps))
        passes = (
            shards
            for batch in batches
            for shards in parts_of_batch(batch, self.config.accumulate_steps, self.devices.count)
        )
        yield from gathered([texts_read(shard, read) for shard in shards] for shards in passes)


def train_weaver(
    host: AdapterHost,
    memory: str,
    data: ExampleSet,
    config: TrainingConfig,
    *,
    held_out: Sequence[Example] = (),
    moments: Path | None = None,
    moments_out: Path | None = None,
    control: RunControl[StepReport] = UNWATCHED,
) -> TrainingReport:
    """Train the memory named `memory` in place.

    With held-out examples, it ends with the weights of their lowest loss: those of `held_out`, or else the config's
    share of the trajectories. With none it ends with the last.

    Args:
        held_out: examples to look at every `validate_every` steps; instead of `held_out_share`.
        moments: file with the optimizer's moments of the run that the memory's weights come from.
        moments_out: file to write those of this run's end to.

    Raises:
        NothingToTrain: no example is left after skipping.
        TrainingDiverged: a loss or gradient is not finite.
        Cancelled: `control.should_stop` returned true, on any device.
        ConfigError: `patience` without held-out examples, or a number of devices other than the config's.
        ArtifactCorrupt, ArtifactMismatch: `moments` can't be read, or are of other shapes.
    """
    _check(data, held_out, config, control.devices)
    if not held_out and config.held_out_share:
        data, held_out = hold_out(data, config.held_out_share, config.seed)
    run = SftRun(host, memory, data.examples, held_out, config, control.devices)
    if moments and not control.saved_state:
        run.trainable.take_moments(moments)
    run_steps(run, config.steps, control)
    if moments_out:
        run.trainable.save_moments(moments_out)
    if run.stopping.best:
        run.trainable.restore(run.stopping.best_weights)
    return _report(run, data)


def _check(data: ExampleSet, held_out: Sequence[Example], config: TrainingConfig, devices: Devices) -> None:
    if not data.examples:
        raise NothingToTrain(
            f"no supervised assistant turn to train on: {data.skipped_long} turns are longer than "
            f"{config.max_example_tokens} tokens or than the model has room for, {data.skipped_weight} have weight 0, "
            f"{data.skipped_reward} trajectories were left out for their reward"
        )
    if config.patience and not held_out and not config.held_out_share:
        raise ConfigError(f"patience is {config.patience}, but nothing is held out; set held_out_share, or patience 0")
    check_count(devices, config.devices)


def _report(run: SftRun, data: ExampleSet) -> TrainingReport:
    trainable, looks = run.trainable, tuple(run.stopping.looks)
    return TrainingReport(
        examples=len(data.examples),
        skipped_long=data.skipped_long,
        skipped_weight=data.skipped_weight,
        steps=trainable.steps,
        tokens=run.tokens,
        seconds=run.seconds,
        losses=tuple(run.losses),
        flags=(
            *did_not_learn(
                run.losses,
                trainable.start,
                trainable.parameters,
                zero_gradients=trainable.zero_gradients,
                held_out_losses=[loss for _, loss in looks],
            ),
            *data.flags,
        ),
        skipped_reward=data.skipped_reward,
        held_out=len(run.held_out),
        held_out_losses=looks,
        best_step=run.stopping.best[0] if run.stopping.best else None,
    )


def did_not_learn(
    losses: Sequence[float],
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    *,
    zero_gradients: int = 0,
    held_out_losses: Sequence[float] = (),
) -> tuple[str, ...]:
    """Reasons to doubt that a run learned anything; empty if there are none.

    Args:
        losses: the loss of each step.
        before, after: the trained tensors.
        zero_gradients: steps in which every gradient was zero.
        held_out_losses: the loss of each look, the first before training.
    """
    flags = []
    if all(torch.equal(old, new) for old, new in zip(before, after, strict=True)):
        flags.append("no weight changed")
    if zero_gradients > len(losses) / 2:
        flags.append(f"every gradient was zero in {zero_gradients} of {len(losses)} steps")
    window = max(1, len(losses) // 5)
    first, last = sum(losses[:window]) / window, sum(losses[-window:]) / window
    if len(losses) >= 2 * window and last > 0.98 * first:
        flags.append(f"the loss did not fall: {first:.3f} at first, {last:.3f} at last")
    if len(held_out_losses) > 1 and min(held_out_losses[1:]) >= held_out_losses[0]:
        flags.append(f"the held-out loss was never below its start, {held_out_losses[0]:.3f}")
    return tuple(flags)


def warmed_cosine(step: int, config: TrainingConfig) -> float:
    """Learning-rate factor of a step (from 0): linear to 1 over the warmup, then a half cosine to 0.1."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
