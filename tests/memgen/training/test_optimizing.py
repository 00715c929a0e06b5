"""Optimizer steps: sums over devices, what is refused, what a checkpoint carries."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from memgen.errors import ArtifactCorrupt, TrainingDiverged
from memgen.training.devices import Devices
from memgen.training.optimizing import ParameterGroup, Trainable, sum_gradients


class TwoDevices(Devices):
    """The other device's message is known beforehand."""

    count = 2

    def __init__(self, other: Tensor, rank: int = 0) -> None:
        self.other, self.rank, self.sent = other, rank, torch.empty(0)

    def total(self, tensor: Tensor) -> Tensor:
        self.sent = tensor
        return tensor + self.other


def _trainable(*values: float, rate: float = 0.1, devices: Devices | None = None) -> Trainable:
    parameters = [torch.nn.Parameter(torch.tensor([value])) for value in values]
    groups = (ParameterGroup("first", tuple(parameters[:1]), rate), ParameterGroup("rest", tuple(parameters[1:]), 1.0))
    return Trainable(groups, lambda step: 1.0 / (step + 1), max_grad_norm=1.0, devices=devices or Devices())


def test_gradients_and_loss_are_summed_over_the_devices() -> None:
    mine, absent, theirs = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    mine.grad = torch.tensor([1.0, 2.0])
    # Three gradients, then which of them exist, then the loss.
    devices = TwoDevices(torch.tensor([10.0, 20.0, 0.0, 0.0, 5.0, 6.0, 1.0, 0.0, 1.0, 0.25]))
    assert sum_gradients([mine, absent, theirs], 0.5, devices) == 0.75
    assert devices.sent.tolist() == [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.5]
    assert mine.grad.tolist() == [11.0, 22.0]
    assert absent.grad is None
    assert theirs.grad is not None
    assert theirs.grad.tolist() == [5.0, 6.0]


def test_each_group_follows_the_schedule_from_its_own_rate() -> None:
    """AdamW's first step moves by the learning rate, against the sign of the gradient."""
    trainable = _trainable(1.0, 2.0)
    for expected in ([0.9, 1.0], [0.85, 0.5]):
        trainable.zero_grad()
        sum(p.sum() for p in trainable.parameters).backward()
        loss, norm = trainable.step(3.0)
        assert loss == 3.0
        assert norm == pytest.approx(2**0.5)
        assert [p.item() for p in trainable.parameters] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("loss", "gradient"), [(float("nan"), 1.0), (1.0, float("inf"))])
def test_what_is_not_finite_ends_the_run_before_it_changes_a_weight(loss: float, gradient: float) -> None:
    trainable = _trainable(1.0, 2.0)
    trainable.parameters[0].grad = torch.tensor([gradient])
    with pytest.raises(TrainingDiverged, match="step 1: loss .*, learning rates first 0.1, rest 1; lower them"):
        trainable.step(loss)
    assert trainable.unchanged() == ["first", "rest"]


def test_groups_that_never_moved_and_steps_without_a_gradient_are_known() -> None:
    trainable = _trainable(1.0, 2.0)
    for gradient in (0.0, 0.0, 1.0):
        trainable.zero_grad()
        trainable.parameters[1].grad = torch.tensor([gradient])
        trainable.step(1.0)
    assert trainable.zero_gradients == 2
    assert trainable.unchanged() == ["first"]


def _step(trainable: Trainable) -> None:
    trainable.zero_grad()
    (trainable.parameters[0] ** 2 * trainable.parameters[1]).sum().backward()
    trainable.step(0.0)


def test_a_saved_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    whole, fresh = _trainable(1.0, 2.0), _trainable(7.0, 7.0)
    _step(whole)
    whole.save(path, {"any": [1, "two"]}, {"best": torch.tensor([3.0])})
    _step(whole)
    state, kept = fresh.resume(path)
    _step(fresh)
    assert state == {"any": [1, "two"]}
    assert kept["best"].tolist() == [3.0]
    assert fresh.steps == 2
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters, fresh.parameters, strict=True))


def test_only_the_first_device_writes(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    _trainable(1.0, 2.0, devices=TwoDevices(torch.zeros(0), rank=1)).save(path, {})
    assert not path.exists()


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    _trainable(1.0, 2.0).save(path, {})
    with pytest.raises(ArtifactCorrupt, match="delete it to start over"):
        _trainable(1.0, 2.0, 3.0).resume(path)
