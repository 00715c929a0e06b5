"""State of a training run in one safetensors file, written atomically: never pickle, never half a file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from memgen.errors import ArtifactCorrupt

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def save_training_state(
    path: Path, parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Write parameters, AdamW moments and a JSON state."""
    tensors: dict[str, Tensor] = {}
    for number, parameter in enumerate(parameters):
        tensors[f"{number}.value"] = parameter.detach().contiguous()
        for name, moment in optimizer.state[parameter].items():
            tensors[f"{number}.{name}"] = moment.detach().contiguous()
    staging = path.with_suffix(".partial")
    save_file(tensors, staging, metadata={"state": json.dumps(state)})
    staging.replace(path)


def load_training_state(path: Path, parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a saved state back into `parameters` and `optimizer`; returns the JSON state.

    Raises:
        ArtifactCorrupt: the file can't be read or belongs to a run of another shape.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            with torch.no_grad():
                for number, parameter in enumerate(parameters):
                    parameter.copy_(file.get_tensor(f"{number}.value"))
                    keys = [name for name in _MOMENTS if f"{number}.{name}" in file.keys()]  # noqa: SIM118 - no mapping
                    optimizer.state[parameter] = {name: file.get_tensor(f"{number}.{name}") for name in keys}
            state: dict[str, Any] = json.loads(metadata["state"])
            return state
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ArtifactCorrupt(f"checkpoint {path} does not fit this run: {error}; delete it to start over") from error
