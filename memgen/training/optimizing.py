"""Optimizer steps on the trained tensors of a memory, on one device or several, saved and resumed bit for bit.

What every training of a memory shares, whatever its loss. Knows neither examples nor rollouts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memgen.errors import ArtifactCorrupt, TrainingDiverged
from memgen.training.checkpoint import load_moments, load_training_state, save_moments, save_training_state
from memgen.training.devices import ALONE, Devices


@dataclass(frozen=True)
class ParameterGroup:
    """Trained tensors (float32) that share a learning rate."""

    name: str
    """Their name in a report."""
    parameters: tuple[Tensor, ...]
    learning_rate: float
    """At the schedule's factor 1."""


@dataclass(frozen=True)
class StepReport:
    step: int
    steps: int
    loss: float
    """Loss of the whole step over all devices. In SFT: weighted mean over examples of the mean token loss, nats."""
    grad_norm: float
    """Before clipping."""
    tokens_per_second: float
    """Prompt and answer tokens of the batches, over the time since the run began or resumed."""
    seconds_left: float
    held_out_loss: float | None = None
    """Held-out loss of the weights after this step, if it was measured then."""


class Trainable:
    """Parameters with AdamW, clipping, a schedule, and the state that a run needs to go on.

    One step is `zero_grad`, any number of `backward` calls on parts of the loss, then `step` with the sum of those
    parts. The parts of all devices add up to the step's loss, so they carry its full denominator: gradients are summed,
    not averaged, and a device with fewer tokens or lighter examples weighs what it should.
    """

    def __init__(
        self,
        groups: Sequence[ParameterGroup],
        schedule: Callable[[int], float],
        *,
        max_grad_norm: float,
        weight_decay: float = 0.0,
        devices: Devices = ALONE,
    ) -> None:
        """`schedule` gives the learning rates' factor of a step, counted from 0. Groups without parameters are left
        out."""
        self.groups = tuple(group for group in groups if group.parameters)
        self.parameters: list[Tensor] = [p for group in self.groups for p in group.parameters]
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            [{"params": list(group.parameters), "peak": group.learning_rate} for group in self.groups],
            weight_decay=weight_decay,
        )
        self.steps = 0
        """Optimizer steps taken."""
        self.zero_gradients = 0
        """Steps in which the gradient of every parameter was zero."""
        self.start = self.weights()
        """The parameters as they were when this object was made."""
        self._schedule = schedule
        self._max_grad_norm = max_grad_norm
        self.devices = devices

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, loss: float) -> tuple[float, float]:
        """Sum gradients and this device's part of the loss over all devices, clip, and update.

        Returns:
            (loss of the whole step, gradient norm before clipping).

        Raises:
            TrainingDiverged: either is not finite; on every device alike, and no weight was changed.
        """
        loss = sum_gradients(self.parameters, loss, self.devices)
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self._max_grad_norm))
        factor = self._schedule(self.steps)
        if not math.isfinite(grad_norm) or not math.isfinite(loss):
            rates = ", ".join(f"{group.name} {group.learning_rate * factor:.2g}" for group in self.groups)
            raise TrainingDiverged(
                f"step {self.steps + 1}: loss {loss}, gradient norm {grad_norm}, learning rates {rates}; lower them, "
                "or raise warmup_steps"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.step()
        self.steps += 1
        self.zero_gradients += grad_norm == 0.0
        return loss, grad_norm

    def weights(self) -> list[Tensor]:
        """Copies of the parameters as they are now."""
        return [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def restore(self, weights: Sequence[Tensor]) -> None:
        """Take the values that `weights` returned before."""
        for parameter, value in zip(self.parameters, weights, strict=True):
            parameter.copy_(value)

    def unchanged(self) -> list[str]:
        """Names of the groups in which no tensor differs from `start`."""
        moved = {id(now) for old, now in zip(self.start, self.parameters, strict=True) if not torch.equal(old, now)}
        return [group.name for group in self.groups if not any(id(p) in moved for p in group.parameters)]

    def save(self, path: Path, state: dict[str, Any], kept: Mapping[str, Tensor] | None = None) -> None:
        """Write everything that the run needs to go on; `state` is JSON, `kept` any tensors of the caller's.

        The first device writes, the others do nothing.
        """
        if self.devices.is_first:
            own = {"steps": self.steps, "zero_gradients": self.zero_gradients}
            save_training_state(path, self.parameters, self.optimizer, {**state, "trainable": own}, kept)

    def resume(self, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Go on from a saved file; returns the caller's state and tensors.

        Raises:
            ArtifactCorrupt: the file can't be read or belongs to a run of another shape.
        """
        state, kept = load_training_state(path, self.parameters, self.optimizer)
        own = state.pop("trainable", None)
        if own is None:
            raise ArtifactCorrupt(f"checkpoint {path} does not say how many steps it took; delete it to start over")
        self.steps, self.zero_gradients = int(own["steps"]), int(own["zero_gradients"])
        return state, kept

    def save_moments(self, path: Path) -> None:
        """Write the optimizer's moments, for a later run that goes on from these weights. The first device writes."""
        if self.devices.is_first:
            save_moments(path, self.parameters, self.optimizer)

    def take_moments(self, path: Path) -> None:
        """Go on with the moments of an earlier run, whose weights these are; the schedule begins anew.

        Raises:
            ArtifactCorrupt, ArtifactMismatch: they can't be read, or are of other shapes; nothing was changed.
        """
        load_moments(path, self.parameters, self.optimizer)


@torch.no_grad()
def sum_gradients(parameters: Sequence[Tensor], loss: float, devices: Devices) -> float:
    """Replace every gradient by its sum over the devices; returns the sum of their losses.

    One message carries gradients, which of them exist, and the loss. A parameter without a gradient on every device
    keeps none, so that the optimizer leaves it alone as it does in one process.
    """
    if devices.count == 1:
        return loss
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    exists = torch.tensor([float(p.grad is not None) for p in parameters] + [loss], device=grads[0].device)
    flat = devices.total(torch.cat([*(grad.float().flatten() for grad in grads), exists]))
    flags = flat[-len(exists) :].tolist()
    start = 0
    for parameter, found in zip(parameters, flags[:-1], strict=True):
        summed = flat[start : start + parameter.numel()].view_as(parameter)
        parameter.grad = summed.to(parameter.dtype) if found else None
        start += parameter.numel()
    return float(flags[-1])
