"""Which weights a run ends with, and when it ends."""

import pytest
import torch

from memgen.errors import TrainingDiverged
from memgen.training.optimizing import ParameterGroup, Trainable
from memgen.training.weaver.early_stopping import EarlyStopping


def _after(patience: int, *losses: float) -> tuple[EarlyStopping, list[bool]]:
    """The weight is the number of the look."""
    weight = torch.nn.Parameter(torch.zeros(1))
    trainable = Trainable((ParameterGroup("w", (weight,), 1.0),), lambda step: 1.0, max_grad_norm=1.0)
    stopping, over = EarlyStopping(patience), []
    for number, loss in enumerate(losses):
        trainable.steps = 10 * number
        trainable.restore([torch.tensor([float(number)])])
        stopping.look(trainable, loss)
        over.append(stopping.over)
    return stopping, over


def test_patience_counts_looks_without_a_lower_loss() -> None:
    assert _after(2, 3.0, 2.0, 2.0, 2.5)[1] == [False, False, False, True]
    assert _after(3, 3.0, 2.0, 2.0, 2.5)[1] == [False, False, False, False]
    assert _after(2, 3.0, 3.5, 2.9, 3.0, 2.8)[1] == [False] * 5
    assert _after(0, 1.0, 2.0, 3.0, 4.0)[1] == [False] * 4


def test_the_first_of_the_best_weights_is_kept() -> None:
    stopping, _ = _after(9, 3.0, 2.0, 2.5, 2.0)
    assert stopping.best == (10, 2.0)
    assert [w.item() for w in stopping.best_weights] == [1.0]


def test_it_goes_on_from_what_it_said() -> None:
    stopping, _ = _after(2, 3.0, 2.0, 2.5)
    again = EarlyStopping(2)
    again.resume([list(look) for look in stopping.looks], stopping.kept())
    assert again == stopping


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    with pytest.raises(TrainingDiverged, match="held-out loss after step 10 is nan"):
        _after(2, 3.0, float("nan"))
