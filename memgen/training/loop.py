"""The one loop of all training: collect a batch, learn from it, save, report, step by step.

It knows neither weaver nor trigger, neither examples nor rollouts: a `Learner` does.
"""

import time
from pathlib import Path
from typing import Protocol, TypeVar

from memgen.errors import ArtifactCorrupt, Cancelled
from memgen.training.run_control import RunControl, StepReportT

BatchT = TypeVar("BatchT")


class Learner(Protocol[BatchT, StepReportT]):
    """One kind of training, step by step. What it draws at random follows from the step's number alone."""

    seconds: float
    """Seconds spent on the steps done."""
    stop_note: str = ""
    """Words behind "stopped before step 3 of 9" when the run is stopped."""

    @property
    def steps_done(self) -> int:
        """Whole steps, `collect` and `learn`."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the steps that are left are not worth taking."""
        return False

    def begin(self) -> None:
        """Do what comes before the first of the steps that are left; its time counts as theirs."""
        return

    def collect(self, step: int, /) -> BatchT:
        """What step number `step`, from 0, learns from. Changes nothing, so it may be left by Cancelled."""
        ...

    def learn(self, batch: BatchT, /) -> StepReportT:
        """Learn from the batch, and count the step as done. The report lacks what only the clock knows."""
        ...

    def timed(self, report: StepReportT, elapsed: float, seconds_left: float, /) -> StepReportT:
        """The report of a step, `elapsed` seconds after `begin`, with what the clock knows."""
        ...

    def resume(self, path: Path, /) -> None:
        """Go on from a state that `save` wrote. On one of another kind of run it may raise what it likes."""
        ...

    def save(self, path: Path, /) -> None:
        """Write all that the run needs to go on."""
        ...


def run_steps(learner: Learner[BatchT, StepReportT], steps: int, control: RunControl[StepReportT]) -> None:
    """Take all steps that are left, from the saved state if there is one.

    Raises:
        Cancelled: `control.should_stop` returned true, or `collect` raised it. The state of the last whole step is
            saved.
        ArtifactCorrupt: the saved state can't be read, or is of another kind of run.
    """
    if state := control.saved_state:
        try:
            learner.resume(state)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ArtifactCorrupt(
                f"checkpoint {state} is of another kind of run: {error!r}; delete it to start over"
            ) from error
    first_step, seconds_before = learner.steps_done, learner.seconds
    began = saved = time.monotonic()
    learner.begin()
    while (step := learner.steps_done) < steps and not learner.is_over:
        try:
            if control.must_stop():
                raise Cancelled("stopped between steps")
            batch = learner.collect(step)
        except Cancelled as stopped:
            _save(learner, control)
            raise Cancelled(f"stopped before step {step + 1} of {steps}{learner.stop_note}") from stopped
        report = learner.learn(batch)
        elapsed = time.monotonic() - began
        learner.seconds = seconds_before + elapsed
        if time.monotonic() - saved >= control.checkpoint_interval_seconds:
            _save(learner, control)
            saved = time.monotonic()
        if control.on_step and control.devices.is_first:
            seconds_left = elapsed / (step + 1 - first_step) * (steps - step - 1)
            control.on_step(learner.timed(report, elapsed, seconds_left))


def _save(learner: Learner[BatchT, StepReportT], control: RunControl[StepReportT]) -> None:
    if control.checkpoint is not None and control.devices.is_first:
        learner.save(control.checkpoint)
        if control.on_checkpoint:
            control.on_checkpoint(control.checkpoint)
