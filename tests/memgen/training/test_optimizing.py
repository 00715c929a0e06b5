"""Optimizer steps: sums over devices, what is refused, what a checkpoint carries."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from memgen.errors import ArtifactCorrupt, ArtifactMismatch, TrainingDiverged
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


def _steady(*values: float) -> Trainable:
    parameters = tuple(torch.nn.Parameter(torch.tensor([value, -value])) for value in values)
    return Trainable([ParameterGroup("all", parameters, 0.1)], lambda step: 1.0, max_grad_norm=100.0)


def _take_steps(trainable: Trainable, first: int, last: int) -> list[list[float]]:
    """Steps `first` to `last` of a run whose gradients change from step to step."""
    for step in range(first, last):
        trainable.zero_grad()
        sum((p * (step + 1) ** 2).sum() for p in trainable.parameters).backward()
        trainable.step(1.0)
    return [p.tolist() for p in trainable.parameters]


def test_a_later_run_goes_on_with_moments_and_step_count(tmp_path: Path) -> None:
    """Three steps and then, in another run from their weights and moments, three more: the same as six."""
    path = tmp_path / "optimizer.safetensors"
    whole, first, cold, later = (_steady(1.0, 2.0) for _ in range(4))
    expected = _take_steps(whole, 0, 6)
    _take_steps(first, 0, 3)
    first.save_moments(path)
    for run in (cold, later):
        run.restore(first.weights())
    later.take_moments(path)
    assert _take_steps(cold, 3, 6) != expected
    assert _take_steps(later, 3, 6) == expected
    assert [int(state["step"]) for state in later.optimizer.state.values()] == [6, 6]
    assert later.steps == 3, "the schedule begins anew"


def test_moments_of_other_shapes_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "optimizer.safetensors"
    run = _steady(1.0, 2.0)
    _take_steps(run, 0, 2)
    run.save_moments(path)
    fewer, longer = _steady(1.0), _trainable(1.0, 2.0)
    with pytest.raises(ArtifactMismatch, match="has moments of 2 parameters; this run trains 1"):
        fewer.take_moments(path)
    with pytest.raises(ArtifactMismatch, match=r"exp_avg of parameter 0 is \(2,\), not \(1,\)"):
        longer.take_moments(path)
    assert not longer.optimizer.state
    path.write_bytes(b"no tensors")
    with pytest.raises(ArtifactCorrupt, match="holds no optimizer's moments"):
        run.take_moments(path)
