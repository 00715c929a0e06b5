"""What a dataset teaches by one method, ready to be trained: the seam between a job and the ways to train a weaver."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from memgen.artifact import Report
from memgen.training.examples import Example
from workers.checkpoints import Checkpoint


@dataclass(frozen=True)
class Lesson:
    examples: tuple[Example, ...]
    """Of the dataset's turns: their prompts say where in the base's states the task lies."""
    train: Callable[[str, Checkpoint, Path], Report]
    """Trains the memory of that name in the host; may leave files in the artifact's folder."""
