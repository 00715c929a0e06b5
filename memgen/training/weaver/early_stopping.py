"""Held-out losses of a run: which weights were best, and when to stop. Knows no model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from memgen.errors import TrainingDiverged
from memgen.training.optimizing import Trainable


@dataclass
class EarlyStopping:
    """Keeps the weights of the lowest held-out loss; of equal losses, the first."""

    patience: int
    """Looks in a row without a lower loss after which the run is over; 0 is never."""
    looks: list[tuple[int, float]] = field(default_factory=list)
    """(optimizer steps taken, held-out loss in nats) of each look, the untrained memory's first."""
    best_weights: list[Tensor] = field(default_factory=list)

    @property
    def best(self) -> tuple[int, float] | None:
        """The look with the lowest loss; None before the first."""
        return min(self.looks, key=lambda look: look[1], default=None)

    @property
    def over(self) -> bool:
        """Looks with losses 3, 2, 2, 2.5 and patience 2 are over; so they are not with patience 3."""
        best = self.best
        if best is None or not self.patience:
            return False
        return len(self.looks) - 1 - self.looks.index(best) >= self.patience

    def look(self, trainable: Trainable, loss: float) -> None:
        """Note the loss of the weights as they are.

        Raises:
            TrainingDiverged: it is not finite.
        """
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the held-out loss after step {trainable.steps} is {loss}; lower the learning rates"
            )
        best = self.best
        self.looks.append((trainable.steps, loss))
        if best is None or loss < best[1]:
            self.best_weights = trainable.weights()

    def kept(self) -> dict[str, Tensor]:
        """The best weights, named for a checkpoint; the other half of it is `looks`."""
        return {str(number): weight for number, weight in enumerate(self.best_weights)}

    def resume(self, looks: Sequence[Sequence[Any]], kept: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's `looks` and `kept`."""
        self.looks = [(int(step), float(loss)) for step, loss in looks]
        self.best_weights = [kept[str(number)] for number in range(len(kept))]
