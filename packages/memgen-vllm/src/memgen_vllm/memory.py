"""What serving needs of a memory's artifact: its config and its queries. Everything else is an ordinary LoRA to vLLM.

An adapter of vLLM is a folder: `<artifact>/weaver` of a memory, the artifact's own of a plain LoRA, a version of form
`lora` among them. From that path alone each process knows which of the two it has.
"""

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memgen.checked_files import read_tensors
from memgen.config import MemoryConfig
from memgen_vllm.artifacts import ArtifactFolder, is_whole
from memgen_vllm.names import ArtifactName
from memgen_vllm.settings import PluginSettings
from memgen_vllm.virtual_ids import MAX_QUERIES

_WEAVER = "weaver"
_KEPT = 4096
"""Configs that a process remembers: a few hundred bytes each."""


@dataclass(frozen=True)
class ServedMemory:
    config: MemoryConfig
    weaves: bool
    """False only for the trigger `never`, whose memory is the bare base."""


def adapter_path(folder: Path) -> Path:
    """Where vLLM finds the adapter of an artifact."""
    return folder / _WEAVER if (folder / _WEAVER).is_dir() else folder


def is_memory(lora_request: Any) -> bool:
    """Whether a LoRA request, or None, names a memory: its adapter is on for virtual ids alone. Reads no file."""
    return lora_request is not None and Path(lora_request.lora_path).name == _WEAVER


def memory_of(lora_request: Any) -> ServedMemory | None:
    """The memory that a LoRA request names; None if it names none, or a plain adapter."""
    return _read(lora_request.lora_path) if is_memory(lora_request) else None


def read_memory(folder: Path) -> ServedMemory:
    """The memory of an artifact's folder. Raises ConfigError if its config is no memory's."""
    described = json.loads((folder / "memory.json").read_text())
    config = MemoryConfig.from_mapping(described["config"])
    return ServedMemory(config, config.trigger != "never")


def read_queries(folder: Path) -> Tensor:
    """`(MAX_QUERIES + K, H)` in float32: the prompt's, and from row MAX_QUERIES on those inside answers."""
    tensors = read_tensors(folder / "memory.safetensors")
    prompt, inside = (_normed(tensors, name) for name in ("prompt_queries", "inference_queries"))
    return torch.cat([torch.nn.functional.pad(prompt, (0, 0, 0, MAX_QUERIES - len(prompt))), inside])


def decides_alone(folder: Path) -> bool:
    """Whether a learned trigger was never trained: its head is all zeros, and the memory weaves at every point."""
    tensors = read_tensors(folder / "memory.safetensors")
    return not any(bool(tensors[f"trigger_head.{part}"].any()) for part in ("weight", "bias"))


@contextmanager
def held_artifact(lora_request: Any) -> Iterator[Path]:
    """The folder of a LoRA request's artifact, on this machine while it is held (`ArtifactFolder.held`).

    A path that no hash names is an operator's own, for the offline use of vLLM; it is taken as it is.
    """
    folder = _folder_of(lora_request)
    name = ArtifactName.parse(folder.name)
    if name is None:
        yield folder
        return
    with _artifacts(folder.parent).held(name) as held:
        yield held


def is_here(lora_request: Any) -> bool:
    """Whether a LoRA request's artifact is on this machine with all of its files. Asks no store."""
    folder = _folder_of(lora_request)
    return ArtifactName.parse(folder.name) is None or is_whole(folder)


def _folder_of(lora_request: Any) -> Path:
    path = Path(lora_request.lora_path)
    return path.parent if path.name == _WEAVER else path


@functools.lru_cache(_KEPT)
def _read(lora_path: str) -> ServedMemory:
    with held_artifact(_Path(lora_path)) as folder:
        return read_memory(folder)


@dataclass(frozen=True)
class _Path:
    """As much of a LoRA request as tells its folder; hashable."""

    lora_path: str


@functools.cache
def _artifacts(root: Path) -> ArtifactFolder:
    return ArtifactFolder(replace(PluginSettings.of_environment(), folder=root))


def _normed(tensors: dict[str, Tensor], name: str) -> Tensor:
    """LayerNorm, then the scale (`memgen.memory.weights.QueryLatents`)."""
    latents, weight, bias, scale = (
        tensors[f"{name}.{part}"].float() for part in ("latents", "norm.weight", "norm.bias", "scale")
    )
    return torch.nn.functional.layer_norm(latents, latents.shape[1:], weight, bias) * scale
