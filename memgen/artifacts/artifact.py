"""A memory as a folder: checked in every byte, never pickled.

memory.json            config, base, its revision and identity, steps and parts trained
memory.safetensors     query latents, norms, scales, projections, trigger head
weaver/, trigger/      the LoRAs in PEFT's own format; trigger/ only if the trigger has one
report.json            the training report
optimizer.safetensors  the optimizer's moments at the end, to train on from here; serving needs none
experience/            what its weaver is cued from (`memgen.experience.pool`), if its config has cues
manifest.json          sha256 of every file above

A version of form `lora` has no memory.safetensors, weaver/ and trigger/: adapter_config.json and
adapter_model.safetensors stand in the folder itself, so that `peft.PeftModel.from_pretrained(base, folder)` reads it.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memgen.artifacts.report import Report
from memgen.backbone.identity import BaseIdentity
from memgen.backbone.loading import Backbone
from memgen.backbone.lora import Lora, peft_config
from memgen.checked_files import (
    check_files,
    check_tensors,
    read_object,
    read_tensors,
    write_json,
    write_manifest,
    write_tensors,
)
from memgen.config import MemoryConfig
from memgen.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing, ConfigError
from memgen.experience.pool import Experience
from memgen.experience.recall import Recall
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory

FORMAT = 2
_TENSORS = "memory.safetensors"
_EXPERIENCE = "experience"
LORA_FILE = "adapter_model.safetensors"
MOMENTS_FILE = "optimizer.safetensors"
"""The one file that may be left behind when a memory is fetched to serve."""


def save_artifact(host: AdapterHost, name: str, folder: Path, report: Report) -> str:
    """Write the memory `name` into `folder`; returns the sha256 of its manifest, which covers what was there too."""
    memory, backbone = host.memories[name], host.backbone
    weaver_base = host.weaver_base(memory.config)
    folder.mkdir(parents=True, exist_ok=True)
    for part, lora, base in (
        (_own_part(memory.config), memory.weaver, weaver_base),
        ("trigger", memory.trigger, backbone),
    ):
        if lora is not None:
            save_lora(lora, memory.config, base.name, folder / part)
    if memory.reader is None:
        write_tensors(folder / _TENSORS, memory.state_dict())
    if memory.recall is not None:
        memory.recall.pool.save(folder / _EXPERIENCE)
    description = {
        "format": FORMAT,
        "config": memory.config.to_mapping(),
        "base_model": backbone.name,
        "base_revision": backbone.revision,
        "base_identity": backbone.identity.to_mapping(),
        "hidden_size": backbone.hidden_size,
        "trained_steps": report.steps,
        "trained": trained_parts(memory),
    }
    if weaver_base is not backbone:
        description |= {
            "weaver_base_revision": weaver_base.revision,
            "weaver_base_identity": weaver_base.identity.to_mapping(),
            "weaver_hidden_size": weaver_base.hidden_size,
        }
    write_json(folder / "memory.json", description)
    write_json(folder / "report.json", asdict(report))
    return write_manifest(folder)


def trained_parts(memory: Memory) -> list[str]:
    """`weaver`, and `trigger` if there is a learned one that has learned something; `lora` for that form."""
    if memory.reader is not None:
        return ["lora"]
    learns = memory.config.trigger in ("lora", "head")
    return ["weaver", *(["trigger"] if learns and not memory.has_untrained_trigger else [])]


def load_artifact(host: AdapterHost, name: str, folder: Path, *, manifest_sha256: str | None = None) -> Memory:
    """Load a saved memory into the host under `name`.

    Raises:
        ArtifactMissing: a file is not there.
        ArtifactCorrupt: a file differs from the manifest, or the manifest from `manifest_sha256`.
        ArtifactMismatch: it was made for another base, or its tensors don't fit its config, or it was never trained.
    """
    check_files(folder, manifest_sha256, may_lack=(MOMENTS_FILE,))
    description = _description(folder / "memory.json")
    oldest = description.get("format") == 1
    config = _check_description(host, folder, _as_format_2(description) if oldest else description)
    memory = host.create(name, config, seed=None)
    try:
        if memory.reader is None:
            tensors = read_tensors(folder / _TENSORS)
            if oldest:
                tensors = _tensors_as_format_2(tensors, memory)
            check_tensors(folder / _TENSORS, tensors, memory.state_dict())
            memory.load_state_dict(tensors)
        for part, lora in ((_own_part(config), memory.weaver), ("trigger", memory.trigger)):
            if lora is not None:
                load_lora(lora, folder / part)
        if config.cue_tokens:
            pool = Experience.load(folder / _EXPERIENCE, host.backbone)
            memory.recall = Recall(host.backbone, config, pool)
    except (ArtifactMismatch, ArtifactMissing, ArtifactCorrupt):
        host.remove(name)
        raise
    return memory


def _own_part(config: MemoryConfig) -> str:
    """Folder of the weaver's LoRA, or of the version's own."""
    return "." if config.form == "lora" else "weaver"


def save_lora(
    lora: Lora, config: MemoryConfig, base_name: str, folder: Path, dtype: torch.dtype = torch.float32
) -> None:
    """Write an adapter so that PEFT can load it."""
    folder.mkdir(parents=True, exist_ok=True)
    peft_config(config, base_name).save_pretrained(str(folder))
    write_tensors(folder / LORA_FILE, {key: factor.to(dtype) for key, factor in lora.state_dict().items()})


def load_lora(lora: Lora, folder: Path) -> None:
    """Read the factors that PEFT wrote into `lora`, which has the same shape.

    Raises:
        ArtifactMissing, ArtifactCorrupt, ArtifactMismatch: as `load_artifact`.
    """
    tensors = read_tensors(folder / LORA_FILE)
    check_tensors(folder / LORA_FILE, tensors, lora.state_dict())
    lora.load_state_dict(tensors)


def _description(path: Path) -> dict[str, Any]:
    """memory.json, its nested objects known to be some. Raises ArtifactMissing, ArtifactCorrupt."""
    found = read_object(path)
    identities = [found[key] for key in ("base_identity", "weaver_base_identity") if found.get(key) is not None]
    for each in (found.get("config"), *identities):
        if not isinstance(each, dict):
            raise ArtifactCorrupt(f"{path}: has {str(each)[:100]!r} for an object; is it a memory's?")
    return found


def _check_description(host: AdapterHost, folder: Path, description: dict[str, Any]) -> MemoryConfig:
    """The config, once it is clear that the memory was trained, and for the loaded bases."""
    backbone, path = host.backbone, folder / "memory.json"
    if description.get("format") != FORMAT:
        raise ArtifactMismatch(f"{path}: format is {description.get('format')!r}; this version reads {FORMAT}")
    try:
        config = MemoryConfig.from_mapping(description["config"])
    except ConfigError as error:
        raise ArtifactMismatch(f"{path}: {error}") from error
    weaver_base = host.weaver_base(config)
    pairs = [
        ("hidden_size", description.get("hidden_size"), backbone, backbone.hidden_size),
        ("base_revision", description.get("base_revision"), backbone, backbone.revision),
    ]
    if weaver_base is not backbone:
        pairs += [
            ("weaver_hidden_size", description.get("weaver_hidden_size"), weaver_base, weaver_base.hidden_size),
            ("weaver_base_revision", description.get("weaver_base_revision"), weaver_base, weaver_base.revision),
        ]
    for field, made_with, base, have in pairs:
        if made_with != have:
            raise ArtifactMismatch(f"{path}: {field} is {made_with!r}, but the loaded base {base.name!r} has {have!r}")
    _check_identity(path, description.get("base_identity"), backbone)
    if weaver_base is not backbone:
        _check_identity(path, description.get("weaver_base_identity"), weaver_base)
    if not description.get("trained_steps"):
        raise ArtifactMismatch(f"{path}: trained_steps is {description.get('trained_steps')!r}; it was never trained")
    return config


def _check_identity(path: Path, made_with: dict[str, str] | None, base: Backbone) -> None:
    """Artifacts of releases that knew the weights alone say nothing of it, and are taken for the base's."""
    if made_with is None:
        return
    if changed := BaseIdentity.from_mapping(made_with).changed_parts(base.identity):
        raise ArtifactMismatch(
            f"{path}: made with another {' and another '.join(changed)} than the loaded base {base.name!r} has. A "
            "memory answers only to the very prompts that it was trained on: bring the files back as they were, or "
            "train a new memory for the base as it is now"
        )


def _as_format_2(description: dict[str, Any]) -> dict[str, Any]:
    """Format 1 knew prompt-end insertions only."""
    config = {key: value for key, value in description["config"].items() if key != "insertion"}
    return {**description, "format": FORMAT, "config": {**config, "max_insertions": 0, "inference_latents": 8}}


def _tensors_as_format_2(tensors: dict[str, Tensor], memory: Memory) -> dict[str, Tensor]:
    """Its queries were the prompt's; the unused queries of insertions while generating are the fresh memory's."""
    fresh = {key: value for key, value in memory.state_dict().items() if key.startswith("inference_queries.")}
    return {**fresh, **{f"prompt_{key}": value for key, value in tensors.items()}}
