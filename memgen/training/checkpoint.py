"""State of a training run in one safetensors file, written atomically: never pickle, never half a file.

A run's whole state, to go on where it was killed; or the moments of its optimizer alone, for a later run that goes on
from its weights.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from memgen.errors import ArtifactCorrupt, ArtifactMismatch

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_KEPT = "kept."


def save_training_state(
    path: Path,
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    kept: Mapping[str, Tensor] | None = None,
) -> None:
    """Write parameters, AdamW moments, a JSON state, and other tensors that the run keeps."""
    tensors: dict[str, Tensor] = {f"{_KEPT}{name}": tensor.contiguous() for name, tensor in (kept or {}).items()}
    for number, parameter in enumerate(parameters):
        tensors[f"{number}.value"] = parameter.detach().contiguous()
        for name, moment in optimizer.state[parameter].items():
            tensors[f"{number}.{name}"] = moment.detach().contiguous()
    _write(path, tensors, {"state": json.dumps(state)})


def load_training_state(
    path: Path, parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Put a saved state back into `parameters` and `optimizer`; returns the JSON state and the kept tensors (on CPU).

    Raises:
        ArtifactCorrupt: the file can't be read or belongs to a run of another shape.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata, keys = file.metadata() or {}, set(file.keys())
            with torch.no_grad():
                for number, parameter in enumerate(parameters):
                    parameter.copy_(file.get_tensor(f"{number}.value"))
                    optimizer.state[parameter] = {
                        name: _beside(parameter, name, file.get_tensor(f"{number}.{name}"))
                        for name in _MOMENTS
                        if f"{number}.{name}" in keys
                    }
            kept = {k.removeprefix(_KEPT): file.get_tensor(k) for k in sorted(keys) if k.startswith(_KEPT)}
            state: dict[str, Any] = json.loads(metadata["state"])
            return state, kept
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ArtifactCorrupt(f"checkpoint {path} does not fit this run: {error}; delete it to start over") from error


def save_moments(path: Path, parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Write AdamW's moments and step counts, without the parameters."""
    tensors = {
        f"{number}.{name}": moment.detach().contiguous()
        for number, parameter in enumerate(parameters)
        for name, moment in optimizer.state[parameter].items()
    }
    _write(path, tensors, {"parameters": str(len(parameters))})


def load_moments(path: Path, parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Let `optimizer` go on with moments that another run saved. Raises as `read_moments`, and changes nothing then."""
    for parameter, state in zip(parameters, read_moments(path, parameters), strict=True):
        optimizer.state[parameter] = state


def read_moments(path: Path, parameters: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """The optimizer's state of each of `parameters`, beside it; empty for one that was never updated.

    Raises:
        ArtifactCorrupt: the file can't be read.
        ArtifactMismatch: it is of parameters of another number or other shapes.
    """
    try:
        with safe_open(path, framework="pt") as file:
            keys = file.keys()
            count, moments = int((file.metadata() or {})["parameters"]), {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ArtifactCorrupt(f"{path} holds no optimizer's moments: {error}") from error
    if count != len(parameters):
        raise ArtifactMismatch(f"{path} has moments of {count} parameters; this run trains {len(parameters)}")
    states: list[dict[str, Tensor]] = []
    for number, parameter in enumerate(parameters):
        state = {name: moments[f"{number}.{name}"] for name in _MOMENTS if f"{number}.{name}" in moments}
        for name, moment in state.items():
            if name != "step" and moment.shape != parameter.shape:
                raise ArtifactMismatch(
                    f"{path}: {name} of parameter {number} is {tuple(moment.shape)}, not {tuple(parameter.shape)}"
                )
        states.append({name: _beside(parameter, name, moment) for name, moment in state.items()})
    return states


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    staging = path.with_suffix(".partial")
    save_file(dict(tensors), staging, metadata=metadata)
    staging.replace(path)


def _beside(parameter: Tensor, name: str, moment: Tensor) -> Tensor:
    """Moments live where their parameter does; AdamW counts steps on the CPU."""
    return moment if name == "step" else moment.to(parameter.device)
