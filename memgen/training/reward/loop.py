"""The loop of training from reward: play, learn, save, report, step by step. Knows neither weaver nor trigger."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from memgen.errors import Cancelled
from memgen.training.devices import ALONE, Devices
from memgen.training.reward.rollouts import Group

Batch = TypeVar("Batch")
Report = TypeVar("Report", covariant=True)


class Learner(Protocol[Batch, Report]):
    """What a run does in a step. What it draws follows from the step's number alone."""

    seconds: float
    """Spent on the steps done."""

    @property
    def steps_done(self) -> int:
        """Whole steps, `play` and `learn`."""
        ...

    def play(self, step: int, /) -> Batch:
        """What step number `step`, from 0, learns from. Changes nothing, so it may be left by Cancelled."""
        ...

    def learn(self, batch: Batch, /) -> Report:
        """Learn from it, and count the step as done."""
        ...

    def save(self, path: Path) -> None:
        """Write all that the run needs to go on."""
        ...


def run_steps(
    learner: Learner[Batch, Report],
    steps: int,
    *,
    checkpoint: Path | None,
    checkpoint_interval_seconds: float,
    on_checkpoint: Callable[[Path], None] | None,
    on_step: Callable[[Report, float], None] | None,
    should_stop: Callable[[], bool] | None,
    devices: Devices = ALONE,
) -> None:
    """Take all steps that are left.

    Args:
        on_step: called with each step's report and the seconds that are left.
        should_stop: asked before each step; true, on any device, ends the run.
        devices: of the processes that all call this alike; the first one saves and reports.

    Raises:
        Cancelled: `should_stop` said so, or `play` raised it. The state of the last whole step is saved.
    """

    def save() -> None:
        if checkpoint is not None and devices.is_first:
            learner.save(checkpoint)
            if on_checkpoint:
                on_checkpoint(checkpoint)

    first_step, before = learner.steps_done, learner.seconds
    began = saved = time.monotonic()
    for step in range(first_step, steps):
        try:
            if devices.any(bool(should_stop and should_stop())):
                raise Cancelled("stopped between steps")
            batch = learner.play(step)
        except Cancelled as stopped:
            save()
            raise Cancelled(f"stopped before step {step + 1} of {steps} was learned from") from stopped
        report = learner.learn(batch)
        elapsed = time.monotonic() - began
        learner.seconds = before + elapsed
        if time.monotonic() - saved >= checkpoint_interval_seconds:
            save()
            saved = time.monotonic()
        if on_step and devices.is_first:
            on_step(report, elapsed / (step + 1 - first_step) * (steps - step - 1))


def play_together(devices: Devices, count: int, play: Callable[[range], list[Group]]) -> list[Group]:
    """The groups of a step's `count` items, in order: each device plays its share, and is told what the others played.

    Args:
        play: gives the groups of the items at some places.

    Raises:
        Cancelled: `play` raised it, on any device.
    """
    groups: list[Group] = []
    stopped = False
    try:
        groups = play(devices.share(count))
    except Cancelled:
        stopped = True
    if devices.any(stopped):
        raise Cancelled("stopped while rollouts were played")
    return devices.gathered(groups)


def drawn_of_step(count: int, per_step: int, seed: int, step: int) -> list[int]:
    """Which of `count` items a step takes: consecutive slices of one shuffled pass over them after another."""
    places = (divmod(draw, count) for draw in range(step * per_step, (step + 1) * per_step))
    return [_order_of_epoch(count, seed, epoch)[place] for epoch, place in places]


@functools.lru_cache(maxsize=2)
def _order_of_epoch(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return tuple(torch.randperm(count, generator=generator).tolist())
