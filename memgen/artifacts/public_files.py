"""The files of a checkpoint of the public MemGen code: written plainly, read with suspicion.

Knows what one file holds, not what a memory is. Reading runs no code that a file may carry. Values keep their dtype,
which is one that float32 holds exactly.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor

from memgen.artifacts.artifact import LORA_FILE
from memgen.backbone.loading import Backbone
from memgen.backbone.lora import PEFT_PREFIX, Lora
from memgen.checked_files import check_tensors, read_tensors
from memgen.config import MemoryConfig
from memgen.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing, ConfigError

_EXACT = (torch.float32, torch.bfloat16, torch.float16)
_READ = frozenset({"peft_type", "r", "lora_alpha", "target_modules", "init_lora_weights"})
_WITHOUT_EFFECT = frozenset(
    {"task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"}
    | {"lora_dropout", "megatron_core", "runtime_config"}
)
"""Fields of PEFT's config that don't change what a trained LoRA computes."""
_STARTS = (True, False, None, "gaussian")
"""Values of `init_lora_weights` that leave the base as it is; `pissa`, `olora` and others train on a changed base."""


@dataclass(frozen=True)
class SavedLora:
    """A LoRA as PEFT saved it."""

    path: Path
    """File with its factors."""
    base_name: str | None
    """Name of the base where it was trained."""
    rank: int
    alpha: int
    target_modules: tuple[str, ...]
    """Last names of the adapted layers, sorted."""
    tensors: dict[str, Tensor]

    @property
    def trained(self) -> bool:
        """Whether a B differs from zero, which is where PEFT starts them all."""
        return any(bool(tensor.any()) for key, tensor in self.tensors.items() if ".lora_B." in key)

    def fitted(self, base: Backbone) -> dict[str, Tensor]:
        """The factors under the names that `Lora.state_dict` has on this base.

        Raises:
            ArtifactMismatch: they are of another base.
        """
        try:
            config = MemoryConfig(rank=self.rank, alpha=self.alpha, target_modules=self.target_modules)
            expected = Lora.for_model(base.model, config, torch.Generator()).state_dict()
        except ConfigError as error:
            raise ArtifactMismatch(f"{self.path}: {error}") from error
        tensors = self.tensors
        if tensors.keys() != expected.keys():
            # Revisions of the public code wrap a model twice to load a checkpoint; one saved after that names it so.
            unwrapped = {key.replace(f"{PEFT_PREFIX}model.", PEFT_PREFIX, 1): tensor for key, tensor in tensors.items()}
            tensors = unwrapped if unwrapped.keys() == expected.keys() else tensors
        check_tensors(self.path, tensors, expected)
        return tensors


def read_lora(folder: Path) -> SavedLora:
    """Raises ArtifactMissing, ArtifactCorrupt, or ArtifactMismatch if it is more than plain LoRA."""
    path = folder / "adapter_config.json"
    config = read_json(path)
    _check_plain(path, config)
    weights, older = folder / LORA_FILE, folder / "adapter_model.bin"
    if not weights.is_file() and older.is_file():
        weights = older
        tensors = read_bin(weights)
    else:
        tensors = dict(_flat(weights, read_tensors(weights)))
    modules = {key.rpartition(".lora_")[0].rpartition(".")[2] for key in tensors if ".lora_" in key}
    rank, ranks = read_integer(path, config, "r"), {len(a) for key, a in tensors.items() if ".lora_A." in key}
    if ranks != {rank}:
        raise ArtifactMismatch(f"{path}: r is {rank}, but {weights.name} has factors of rank {sorted(ranks)}")
    return SavedLora(
        path=weights,
        base_name=config.get("base_model_name_or_path"),
        rank=rank,
        alpha=read_integer(path, config, "lora_alpha"),
        target_modules=tuple(sorted(modules)),
        tensors=tensors,
    )


def read_bin(path: Path) -> dict[str, Tensor]:
    """Tensors that `torch.save` wrote, with the keys of nested dicts joined by dots.

    Raises:
        ArtifactMissing, ArtifactCorrupt, ArtifactMismatch: as `read_lora`.
    """
    check_exists(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive, or one that carries code, fails in any way
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ArtifactCorrupt(f"{path}: not a file of tensors alone that torch.save wrote: {reason}") from error
    return dict(_flat(path, content))


def write_bin(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """The reverse of `read_bin`: `{"a.b": x, "c": y}` is written as `{"a": {"b": x}, "c": y}`."""
    nested: dict[str, Any] = {}
    for key, tensor in tensors.items():
        outer, _, inner = key.partition(".")
        place = nested.setdefault(outer, {}) if inner else nested
        place[inner or outer] = tensor.detach().cpu().to(dtype)
    torch.save(nested, path)


def read_json(path: Path) -> dict[str, Any]:
    """Raises ArtifactMissing or ArtifactCorrupt."""
    check_exists(path)
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ArtifactCorrupt(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ArtifactCorrupt(f"{path}: is a {type(content).__name__}; expected an object")
    return content


def read_integer(path: Path, config: Mapping[str, Any], key: str) -> int:
    """Raises ArtifactMismatch if it is not there or not whole."""
    value = config.get(key)
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        raise ArtifactMismatch(f"{path}: {key} is {value!r}; expected a whole number")
    return int(value)


def check_exists(path: Path) -> None:
    """Raises ArtifactMissing."""
    if not path.is_file():
        raise ArtifactMissing(f"{path} is missing; every checkpoint of the public MemGen code has it")


def _check_plain(path: Path, config: Mapping[str, Any]) -> None:
    neutral = LoraConfig().to_dict()  # type: ignore[no-untyped-call]  # PEFT leaves it untyped
    found = {
        key: value
        for key, value in config.items()
        if key not in _READ | _WITHOUT_EFFECT and value and value != neutral.get(key)
    }
    if config.get("peft_type") != "LORA":
        found["peft_type"] = config.get("peft_type")
    if config.get("init_lora_weights") not in _STARTS:
        found["init_lora_weights"] = config["init_lora_weights"]
    if found:
        fields = ", ".join(f"{key}={value!r}" for key, value in sorted(found.items()))
        raise ArtifactMismatch(
            f"{path}: {fields} is more than plain LoRA; only r, lora_alpha and target_modules are known"
        )


def _flat(path: Path, content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(path, value, f"{name}.{key}" if name else str(key))
    elif not isinstance(content, Tensor):
        raise ArtifactCorrupt(
            f"{path}: {name or 'the content'} is a {type(content).__name__}; expected tensors by name"
        )
    elif content.dtype not in _EXACT:
        raise ArtifactMismatch(
            f"{path}: {name} is {content.dtype}; expected one of {_EXACT}, which float32 holds exactly"
        )
    elif not content.isfinite().all():
        raise ArtifactCorrupt(f"{path}: {name} has values that are not finite")
    else:
        yield name, content.detach()
