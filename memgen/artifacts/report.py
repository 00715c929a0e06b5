"""Reports of a training: what an artifact needs of any, and the report of supervised training."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True)
class TrainingReport:
    examples: int
    """Trained on; those held out are not among them."""
    skipped_long: int
    skipped_weight: int
    steps: int
    """Optimizer steps taken: fewer than the config's if the run stopped early."""
    tokens: int
    seconds: float
    losses: tuple[float, ...]
    flags: tuple[str, ...]
    """Signs that it did not learn, in plain words; empty if none."""
    skipped_reward: int = 0
    held_out: int = 0
    """Examples that were looked at but not trained on."""
    held_out_losses: tuple[tuple[int, float], ...] = ()
    """(optimizer steps taken, loss) of each look at them."""
    best_step: int | None = None
    """The weights are those after this many steps; None if nothing was held out, and they are the last."""


class Report(Protocol):
    """The report of a training: a dataclass of values that JSON can hold."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def steps(self) -> int:
        """0 if it was never trained."""
        ...

    @property
    def flags(self) -> tuple[str, ...]:
        """Signs that it did not learn."""
        ...
