"""A memory as a folder: checked in every byte, never pickled.

memory.json            config, base and its revision, steps trained
memory.safetensors     query latents, norm, scale
weaver/                the LoRA in PEFT's own format
report.json            the training report
manifest.json          sha256 of every file above
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load, save_file
from torch import Tensor

from memgen.config import MemoryConfig
from memgen.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing
from memgen.training.weaver_sft import TrainingReport
from memgen.weaver import AdapterHost, Memory, adapter_name, lora_config

FORMAT = 1
_LORA_FILE = "weaver/adapter_model.safetensors"


def save_artifact(host: AdapterHost, name: str, folder: Path, report: TrainingReport) -> str:
    """Write the memory `name` into an empty `folder`; returns the sha256 of its manifest."""
    memory, backbone = host.memories[name], host.backbone
    weaver = folder / "weaver"
    weaver.mkdir(parents=True, exist_ok=True)
    lora_config(memory.config, backbone.name).save_pretrained(str(weaver))
    state = _lora_state(host, name)
    save_file({key: _plain(value) for key, value in state.items()}, folder / _LORA_FILE, metadata={"format": "pt"})
    save_file(
        {key: _plain(value) for key, value in memory.state_dict().items()},
        folder / "memory.safetensors",
        metadata={"format": "pt"},
    )
    description = {
        "format": FORMAT,
        "config": memory.config.to_mapping(),
        "base_model": backbone.name,
        "base_revision": backbone.revision,
        "hidden_size": backbone.hidden_size,
        "trained_steps": report.steps,
    }
    _write_json(folder / "memory.json", description)
    _write_json(folder / "report.json", asdict(report))
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")
    _write_json(folder / "manifest.json", {p.relative_to(folder).as_posix(): _sha256(p) for p in files})
    return _sha256(folder / "manifest.json")


def load_artifact(host: AdapterHost, name: str, folder: Path, *, manifest_sha256: str | None = None) -> Memory:
    """Load a saved memory into the host under `name`.

    Raises:
        ArtifactMissing: a file is not there.
        ArtifactCorrupt: a file differs from the manifest, or the manifest from `manifest_sha256`.
        ArtifactMismatch: it was made for another base, or was never trained.
    """
    check_files(folder, manifest_sha256)
    description = json.loads((folder / "memory.json").read_text())
    _check_description(host, folder, description)
    memory = host.create(name, MemoryConfig.from_mapping(description["config"]))
    try:
        tensors = load((folder / "memory.safetensors").read_bytes())
        _check_tensors(folder / "memory.safetensors", tensors, memory.state_dict())
        memory.load_state_dict(tensors)
        lora = load((folder / _LORA_FILE).read_bytes())
        _check_tensors(folder / _LORA_FILE, lora, _lora_state(host, name))
        set_peft_model_state_dict(host.peft, lora, adapter_name=adapter_name(name))
    except ArtifactMismatch:
        host.remove(name)
        raise
    return memory


def check_files(folder: Path, manifest_sha256: str | None = None) -> None:
    """Compare every file with the manifest. Raises ArtifactMissing or ArtifactCorrupt."""
    manifest_path = folder / "manifest.json"
    if not manifest_path.is_file():
        raise ArtifactMissing(f"{folder} has no manifest.json; it is not a memory's folder")
    found = _sha256(manifest_path)
    if manifest_sha256 is not None and found != manifest_sha256:
        raise ArtifactCorrupt(f"{manifest_path}: sha256 is {found}, the registry recorded {manifest_sha256}")
    manifest: dict[str, str] = json.loads(manifest_path.read_text())
    for name, expected in manifest.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactMissing(f"{path} is missing; manifest.json lists it")
        if (actual := _sha256(path)) != expected:
            raise ArtifactCorrupt(f"{path}: sha256 is {actual}, manifest.json says {expected}")


def _lora_state(host: AdapterHost, name: str) -> dict[str, Tensor]:
    # Asked whether embeddings were trained too, PEFT would look the base up on the hub.
    state: dict[str, Tensor] = get_peft_model_state_dict(
        host.peft, adapter_name=adapter_name(name), save_embedding_layers=False
    )
    return state


def _check_description(host: AdapterHost, folder: Path, description: dict[str, Any]) -> None:
    backbone, path = host.backbone, folder / "memory.json"
    pairs = [
        ("format", description.get("format"), FORMAT),
        ("hidden_size", description.get("hidden_size"), backbone.hidden_size),
        ("base_revision", description.get("base_revision"), backbone.revision),
    ]
    for field, made_with, have in pairs:
        if made_with != have:
            raise ArtifactMismatch(
                f"{path}: {field} is {made_with!r}, but the loaded base {backbone.name!r} has {have!r}"
            )
    if not description.get("trained_steps"):
        raise ArtifactMismatch(f"{path}: trained_steps is {description.get('trained_steps')!r}; it was never trained")


def _check_tensors(path: Path, got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    if got.keys() != expected.keys():
        missing, extra = sorted(expected.keys() - got.keys())[:3], sorted(got.keys() - expected.keys())[:3]
        raise ArtifactMismatch(f"{path}: tensors missing {missing}, unexpected {extra}")
    for key, tensor in got.items():
        if tensor.shape != expected[key].shape:
            raise ArtifactMismatch(
                f"{path}: {key} is {tuple(tensor.shape)}, the config needs {tuple(expected[key].shape)}"
            )


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
