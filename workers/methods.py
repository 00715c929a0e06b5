"""What a dataset teaches by one method, ready to be trained: the seam between a job and the ways to train a weaver."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from memgen.artifacts.report import Report
from memgen.training.examples import Example
from memgen.training.run_control import RunControl
from memgen.training.several_devices import Training, train_on_devices
from workers.checkpoints import Checkpoint
from workers.model import Model
from workers.runner import Running

Found = TypeVar("Found")


@dataclass(frozen=True)
class Lesson:
    examples: tuple[Example, ...]
    """Of the dataset's turns: their prompts say where in the base's states the task lies."""
    train: Callable[[str, Checkpoint, Path], Report]
    """Trains the memory of that name in the host; may leave files in the artifact's folder."""


def train_watched(
    running: Running,
    model: Model,
    name: str,
    train: Training[Found],
    checkpoint: Checkpoint,
    *,
    devices: int,
    on_step: Callable[[Any], None],
) -> Found:
    """Train the memory `name` of the model's host on so many devices: checkpoints go to the store, the job may stop it.

    Args:
        train: as `train_on_devices` takes it.
    """
    settings = running.services.settings
    control: RunControl[Any] = RunControl(
        checkpoint=checkpoint.path,
        checkpoint_interval_seconds=settings.checkpoint_interval_seconds,
        on_checkpoint=checkpoint.upload,
        on_step=on_step,
        should_stop=running.stop.is_set,
    )
    return train_on_devices(train, devices, model.host, name, cache_dir=settings.models_dir, control=control)
