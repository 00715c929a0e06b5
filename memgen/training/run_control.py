"""How a training run is watched and stopped, and where its state is saved: one object from the caller to the loop.

It says nothing of what is trained: that is a config's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from memgen.training.devices import ALONE, Devices

StepReportT = TypeVar("StepReportT")


@dataclass(frozen=True)
class RunControl(Generic[StepReportT]):
    """Watches one run, whose steps are reported as `StepReportT`. The defaults watch nothing and save nothing."""

    devices: Devices = ALONE
    """The processes that all train this run, with equal arguments and equal weights
    (`memgen.training.several_devices` starts them). The first one saves and reports."""
    checkpoint: Path | None = None
    """File to save the state to while training, and to go on from if it exists: from the weights in it, whatever the
    memory's are."""
    checkpoint_interval_seconds: float = 30.0
    """Least time between two saves."""
    on_checkpoint: Callable[[Path], None] | None = None
    """Called with the file each time it was written."""
    on_step: Callable[[StepReportT], None] | None = None
    """Called with the report of each step, after the step was learned from."""
    should_stop: Callable[[], bool] | None = None
    """Called before each step, and in training from reward while rollouts are played. True, on any device, ends the run
    by Cancelled, with the state of the last whole step saved."""

    @property
    def saved_state(self) -> Path | None:
        """The checkpoint to go on from; None if there is none yet."""
        return self.checkpoint if self.checkpoint is not None and self.checkpoint.is_file() else None

    def must_stop(self) -> bool:
        """Whether the run must stop, on all devices alike. Every process must call it."""
        return self.devices.any(bool(self.should_stop and self.should_stop()))


UNWATCHED: RunControl[Any] = RunControl()
