"""Supervised training of a weaver on the frozen base (MemGen, section 3.3; AdamW, linear warmup, cosine decay).

Data order depends only on the seed and the step, so a run killed at any step goes on from its checkpoint as if it had
not been. Two learning rates: LoRA factors, and everything else (query latents with norm and scale, projections).
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memgen.config import TrainingConfig
from memgen.errors import Cancelled, NothingToTrain, TrainingDiverged
from memgen.host import AdapterHost
from memgen.prompts import Tokens
from memgen.training.checkpoint import load_training_state, save_training_state
from memgen.training.examples import Example, ExampleSet
from memgen.training.forward import PrefixStore, supervised_nll
from memgen.training.losses import mean_by_example

_WINDOW = 4
"""Batches that are sorted by length together. More saves more padding and mixes tasks less within a step."""
_SIMILAR_TOKENS = 16


@dataclass(frozen=True)
class StepReport:
    step: int
    steps: int
    loss: float
    """Mean over examples of the mean token loss, nats."""
    grad_norm: float
    tokens_per_second: float
    """Prompt and answer tokens of the batches, over the time since the run began or resumed."""
    seconds_left: float


@dataclass(frozen=True)
class TrainingReport:
    examples: int
    skipped_long: int
    skipped_weight: int
    steps: int
    tokens: int
    seconds: float
    losses: tuple[float, ...]
    flags: tuple[str, ...]
    """Signs that it did not learn, in plain words; empty if none."""


class _Run:
    """What a run carries from step to step."""

    def __init__(self, host: AdapterHost, memory: str, config: TrainingConfig) -> None:
        trained = host.memories[memory]
        self.lora = list(trained.weaver.parameters())
        self.queries = trained.weaver_parameters()[len(self.lora) :]
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.lora, "peak": config.learning_rate},
                {"params": self.queries, "peak": config.query_learning_rate},
            ],
            weight_decay=config.weight_decay,
        )
        self.losses: list[float] = []
        self.tokens = 0
        self.seconds = 0.0

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.lora, *self.queries]


def train_weaver(
    host: AdapterHost,
    memory: str,
    data: ExampleSet,
    config: TrainingConfig,
    *,
    checkpoint: Path | None = None,
    checkpoint_interval_seconds: float = 30.0,
    on_checkpoint: Callable[[Path], None] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainingReport:
    """Train the memory named `memory` in place.

    Args:
        checkpoint: file to save the state to while training, and to go on from if it exists.
        on_checkpoint: called with that file each time it was written.
        should_stop: asked before each step; true ends the run with its state saved.

    Raises:
        NothingToTrain: no example is left after skipping.
        TrainingDiverged: a loss or gradient is not finite.
        Cancelled: `should_stop` said so.
    """
    examples = data.examples
    if not examples:
        raise NothingToTrain(
            f"no supervised assistant turn to train on: {data.skipped_long} turns are longer than "
            f"{config.max_example_tokens} tokens, {data.skipped_weight} have weight 0"
        )
    run = _Run(host, memory, config)
    before = [parameter.detach().clone() for parameter in run.parameters]
    if checkpoint and checkpoint.is_file():
        _resume(run, checkpoint)
    prefixes = PrefixStore(host.backbone, config.prefix_cache_bytes, _first_epoch(examples, config))
    first_step, began, saved = len(run.losses), time.monotonic(), time.monotonic()
    seconds_before, tokens_before = run.seconds, run.tokens
    for step in range(first_step, config.steps):
        if should_stop and should_stop():
            _save(run, checkpoint, on_checkpoint)
            raise Cancelled(f"stopped before step {step + 1} of {config.steps}")
        batch = batch_of_step(examples, config, step)
        grad_norm = _step(host, memory, batch, run, prefixes, config)
        elapsed = time.monotonic() - began
        run.seconds = seconds_before + elapsed
        if checkpoint and time.monotonic() - saved >= checkpoint_interval_seconds:
            _save(run, checkpoint, on_checkpoint)
            saved = time.monotonic()
        if on_step:
            done = step + 1 - first_step
            on_step(
                StepReport(
                    step=step + 1,
                    steps=config.steps,
                    loss=run.losses[-1],
                    grad_norm=grad_norm,
                    tokens_per_second=(run.tokens - tokens_before) / elapsed,
                    seconds_left=elapsed / done * (config.steps - step - 1),
                )
            )
    flags = did_not_learn(run.losses, before, run.parameters)
    return TrainingReport(
        examples=len(examples),
        skipped_long=data.skipped_long,
        skipped_weight=data.skipped_weight,
        steps=config.steps,
        tokens=run.tokens,
        seconds=run.seconds,
        losses=tuple(run.losses),
        flags=flags,
    )


def batch_of_step(examples: Sequence[Example], config: TrainingConfig, step: int) -> list[Example]:
    """The examples of one step: consecutive slices of one shuffled pass over the data after another."""
    lengths = tuple(len(example.target_ids) for example in examples)
    batch = []
    for draw in range(step * config.batch_size, (step + 1) * config.batch_size):
        epoch, place = divmod(draw, len(examples))
        batch.append(examples[_order_of_epoch(lengths, config.batch_size, config.seed, epoch)[place]])
    return batch


@functools.lru_cache(maxsize=2)
def _order_of_epoch(lengths: tuple[int, ...], batch_size: int, seed: int, epoch: int) -> tuple[int, ...]:
    """A shuffle of all examples in which neighbours have answers of similar length.

    Each run of `_WINDOW` batches is sorted by length, then its batches are shuffled: padding is computed too, and
    short answers must not pay for one long answer beside them. Sorted coarsely, because the exact length of a short
    answer tells the answer, and batches of one class learn badly.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    shuffled = torch.randperm(len(lengths), generator=generator).tolist()
    order: list[int] = []
    for start in range(0, len(shuffled), _WINDOW * batch_size):
        window = sorted(shuffled[start : start + _WINDOW * batch_size], key=lambda n: lengths[n] // _SIMILAR_TOKENS)
        batches = [window[n : n + batch_size] for n in range(0, len(window), batch_size)]
        for place in torch.randperm(len(batches), generator=generator).tolist():
            order.extend(batches[place])
    return tuple(order)


def _first_epoch(examples: Sequence[Example], config: TrainingConfig) -> list[list[Tokens]]:
    """The prompts of each step until every example was seen."""
    steps = min(config.steps, math.ceil(len(examples) / config.batch_size))
    return [[e.prompt_ids[:-1] for e in batch_of_step(examples, config, step)] for step in range(steps)]


def did_not_learn(losses: Sequence[float], before: Sequence[Tensor], after: Sequence[Tensor]) -> tuple[str, ...]:
    """Reasons to doubt that a run learned anything; empty if there are none."""
    flags = []
    if all(torch.equal(old, new) for old, new in zip(before, after, strict=True)):
        flags.append("no weight changed")
    window = max(1, len(losses) // 5)
    first, last = sum(losses[:window]) / window, sum(losses[-window:]) / window
    if len(losses) >= 2 * window and last > 0.98 * first:
        flags.append(f"the loss did not fall: {first:.3f} at first, {last:.3f} at last")
    return tuple(flags)


def _step(
    host: AdapterHost,
    memory: str,
    batch: Sequence[Example],
    run: _Run,
    prefixes: PrefixStore,
    config: TrainingConfig,
) -> float:
    checkpointing = config.activation_checkpointing
    nll, rows = supervised_nll(host, memory, batch, prefixes, checkpointing=checkpointing)
    loss = mean_by_example(nll, rows, len(batch)).mean()
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    grad_norm = float(torch.nn.utils.clip_grad_norm_(run.parameters, config.max_grad_norm))
    value = float(loss.detach())
    if not math.isfinite(grad_norm) or not math.isfinite(value):
        raise TrainingDiverged(
            f"step {len(run.losses) + 1}: loss {value}, gradient norm {grad_norm}; lower learning_rate "
            f"({config.learning_rate}) or raise warmup_steps ({config.warmup_steps})"
        )
    for group in run.optimizer.param_groups:
        group["lr"] = group["peak"] * warmed_cosine(len(run.losses), config)
    run.optimizer.step()
    run.losses.append(value)
    run.tokens += sum(example.tokens for example in batch)
    return grad_norm


def warmed_cosine(step: int, config: TrainingConfig) -> float:
    """Learning-rate factor of a step (from 0): linear to 1 over the warmup, then a half cosine to 0.1."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _save(run: _Run, path: Path | None, on_checkpoint: Callable[[Path], None] | None) -> None:
    if path is None:
        return
    state: dict[str, Any] = {"losses": run.losses, "tokens": run.tokens, "seconds": run.seconds}
    save_training_state(path, run.parameters, run.optimizer, state)
    if on_checkpoint:
        on_checkpoint(path)


def _resume(run: _Run, path: Path) -> None:
    state = load_training_state(path, run.parameters, run.optimizer)
    run.losses, run.tokens, run.seconds = list(state["losses"]), int(state["tokens"]), float(state["seconds"])
