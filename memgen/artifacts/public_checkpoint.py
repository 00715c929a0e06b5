"""Checkpoints of the public MemGen code (github.com/KANABOON1/MemGen), read and written without loss.

config.json                       the reasoner's transformers config, numbers of latents, budgets, `trigger_active`
projs.bin                         the two projections
weaver.bin                        query latents with their norms and scales
trigger.bin                       the trigger's head
weaver/weaver, trigger/trigger    the LoRAs, in PEFT's own format

Such a checkpoint is a memory of form `embedding` with the delimiters `,` `.` and line break. Not kept, because only
the public code's training reads them: `max_prompt_aug_num` and LoRA dropout. Not done as there: a point or comma
behind a digit is no sentence's end (`memgen.text.delimiters`).

The public code saves both LoRAs whether they were trained or not, and its loader can go on without the
factors of a checkpoint. Their B, which starts at zero, tells what was trained; what was not is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memgen.artifacts.artifact import save_lora
from memgen.artifacts.public_files import SavedLora, read_bin, read_integer, read_json, read_lora, write_bin
from memgen.artifacts.report import TrainingReport
from memgen.backbone.loading import Backbone
from memgen.checked_files import check_tensors
from memgen.config import MemoryConfig
from memgen.errors import ArtifactMismatch, ConfigError
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory

DELIMITERS = (",", ".", "\n")
"""The public code's; none of its settings changes them."""

_SIZES = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")


def import_public(
    host: AdapterHost,
    name: str,
    folder: Path,
    *,
    trigger: str | None = None,
    weaver_base: str | None = None,
    allow_untrained: bool = False,
) -> Memory:
    """Load a checkpoint of the public code into the host under `name`. An import that fails changes nothing.

    Args:
        trigger: `lora` uses the checkpoint's trigger, `always` leaves it out. None does what config.json says, but
            refuses to leave out a trigger that was trained.
        weaver_base: name of the loaded base that the weaver runs on. None takes the one that fits; what the
            checkpoint calls it only decides between several.
        allow_untrained: take LoRAs that were never trained, too.

    Raises:
        ArtifactMissing: a file is not there.
        ArtifactCorrupt: a file holds something else than it should, or values that are not finite.
        ArtifactMismatch: it was made for another base, or its parts don't fit together, or are more than plain LoRA,
            or were never trained.
        ConfigError: `trigger` is neither of the two, or `weaver_base` is not in the host.
    """
    public = read_json(folder / "config.json")
    _check_reasoner(folder / "config.json", public, host.backbone)
    weaver, lora_trigger = read_lora(folder / "weaver" / "weaver"), _chosen_trigger(folder, public, trigger)
    base = _find_weaver_base(host, weaver, lora_trigger, weaver_base)
    for lora in (weaver, lora_trigger):
        if lora is not None and not lora.trained and not allow_untrained:
            raise ArtifactMismatch(
                f"{lora.path}: never trained, every lora_B is zero. Import the checkpoint in which it was trained, or "
                "pass allow_untrained=True; a trigger can be left out with trigger='always'"
            )
    config = _read_config(folder, public, weaver, lora_trigger, "" if base is host.backbone else base.name)
    memory = Memory(name, config, host.backbone, base, seed=0)
    memory.weaver.load_state_dict(weaver.fitted(base))
    if memory.trigger is not None and lora_trigger is not None:
        memory.trigger.load_state_dict(lora_trigger.fitted(host.backbone))
    for file, expected in _layout(memory, memory.trigger_head if lora_trigger is not None else None).items():
        got = read_bin(folder / file)
        check_tensors(folder / file, got, expected)
        for key, tensor in expected.items():
            tensor.copy_(got[key])
    host.memories[name] = memory
    return memory


def import_report(trained_steps: int = 1) -> TrainingReport:
    """A report for `save_artifact`: a checkpoint of the public code has none of its training.

    Args:
        trained_steps: optimizer steps; 1 stands for an unknown number.
    """
    return TrainingReport(
        examples=0, skipped_long=0, skipped_weight=0, steps=trained_steps, tokens=0, seconds=0.0, losses=(), flags=()
    )


def export_public(
    host: AdapterHost,
    name: str,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    trigger_active: bool | None = None,
) -> None:
    """Write the memory `name` into an empty `folder`, as the public code does.

    The public code has a trigger in any case: a memory without a learned one gets a fresh one, which is not active.

    Args:
        dtype: type of all tensors: float32, or bfloat16, which is exact if the memory came from bfloat16.
        trigger_active: whether the public code shall use the trigger; None follows the memory.

    Raises:
        ConfigError: the public code has no such memory.
    """
    memory, base = host.memories[name], host.backbone
    weaver_base = host.weaver_base(memory.config)
    _check_exportable(memory.config, dtype, trigger_active)
    learned = memory
    if memory.config.trigger == "always":
        learned = Memory(name, replace(memory.config, trigger="lora"), base, weaver_base, seed=0)
    active = memory.config.trigger == "lora" if trigger_active is None else trigger_active
    folder.mkdir(parents=True, exist_ok=True)
    reasoner = json.loads(base.model.config.to_json_string(use_diff=False))
    config = reasoner | _public_config(memory.config, trigger_active=active)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for file, tensors in _layout(memory, learned.trigger_head).items():
        write_bin(folder / file, tensors, dtype)
    for part, lora, its_base in (("weaver", memory.weaver, weaver_base), ("trigger", learned.trigger, base)):
        if lora is not None:
            save_lora(lora, memory.config, its_base.name, folder / part / part, dtype)


def _check_reasoner(path: Path, public: Mapping[str, Any], base: Backbone) -> None:
    theirs, ours = public.get("text_config") or public, base.model.config.get_text_config()
    for key in _SIZES:
        if key in theirs and theirs[key] != getattr(ours, key, None):
            raise ArtifactMismatch(
                f"{path}: {key} is {theirs[key]!r}, but the loaded base {base.name!r} has {getattr(ours, key, None)!r}"
            )


def _chosen_trigger(folder: Path, public: Mapping[str, Any], wanted: str | None) -> SavedLora | None:
    """The trigger to use, or None for one that always invokes."""
    if wanted not in (None, "lora", "always"):
        raise ConfigError(f"trigger is {wanted!r}; expected 'lora', 'always', or None for what config.json says")
    path, active = folder / "trigger" / "trigger", public.get("trigger_active")
    if not isinstance(active, bool):
        raise ArtifactMismatch(f"{folder / 'config.json'}: trigger_active is {active!r}; expected true or false")
    if wanted == "lora" or (wanted is None and active):
        return read_lora(path)
    if wanted is None and path.is_dir() and (unused := read_lora(path)).trained:
        raise ArtifactMismatch(
            f"{unused.path}: a trained trigger, but config.json says trigger_active is false. Pass trigger='lora' to "
            "use it or trigger='always' to leave it out"
        )
    return None


def _find_weaver_base(host: AdapterHost, weaver: SavedLora, trigger: SavedLora | None, wanted: str | None) -> Backbone:
    if wanted is not None:
        base = host.weaver_base(MemoryConfig(form="embedding", weaver_base=wanted))
        weaver.fitted(base)
        return base
    fitting, reasons = [], []
    for base in host.weaver_bases:
        try:
            weaver.fitted(base)
            fitting.append(base)
        except ArtifactMismatch as error:
            reasons.append(f"{base.name!r}: {error}")
    if not fitting:
        raise ArtifactMismatch(
            f"the weaver was trained on {weaver.base_name!r} and fits no loaded base; give that one to the host. "
            + "; ".join(reasons)
        )
    fitting = [base for base in fitting if base.name == weaver.base_name] or fitting
    if len(fitting) > 1:
        raise ArtifactMismatch(
            f"{weaver.path}: trained on {weaver.base_name!r}, which no loaded base is called, and fits "
            f"{[base.name for base in fitting]}; name one of them as weaver_base"
        )
    [base] = fitting
    if trigger is not None and base is host.backbone and len({weaver.base_name, trigger.base_name} - {None}) > 1:
        raise ArtifactMismatch(
            f"{weaver.path}: the weaver was trained on {weaver.base_name!r}, the trigger on {trigger.base_name!r}, but "
            f"here both would run on {base.name!r}. Give the host the weaver's base, or name it as weaver_base"
        )
    return base


def _read_config(
    folder: Path, public: Mapping[str, Any], weaver: SavedLora, trigger: SavedLora | None, weaver_base: str
) -> MemoryConfig:
    path = folder / "config.json"
    declared = public.get("weaver_lora_config") or {}
    modules = declared.get("target_modules") or ()
    for key, value in (("r", weaver.rank), ("lora_alpha", weaver.alpha)):
        if declared.get(key, value) != value:
            raise ArtifactMismatch(
                f"{path}: weaver_lora_config has {key}={declared[key]!r}, but weaver/weaver/adapter_config.json {value}"
            )
    if trigger is not None and _shape(trigger) != _shape(weaver):
        raise ArtifactMismatch(
            f"{folder}: the weaver's LoRA has {_shape(weaver)}, the trigger's {_shape(trigger)}; a memory has one "
            "shape for both. Pass trigger='always' to import the weaver alone"
        )
    try:
        return MemoryConfig(
            form="embedding",
            trigger="always" if trigger is None else "lora",
            latents=read_integer(path, public, "prompt_latents_len"),
            inference_latents=read_integer(path, public, "inference_latents_len"),
            max_insertions=read_integer(path, public, "max_inference_aug_num"),
            delimiters=DELIMITERS,
            rank=weaver.rank,
            alpha=weaver.alpha,
            # PEFT keeps them as a set, so only this list has an order.
            target_modules=tuple(modules) if sorted(modules) == [*weaver.target_modules] else weaver.target_modules,
            weaver_base=weaver_base,
        )
    except ConfigError as error:
        raise ArtifactMismatch(f"{path}: {error}") from error


def _shape(lora: SavedLora) -> str:
    return f"r={lora.rank}, lora_alpha={lora.alpha}, target_modules={[*lora.target_modules]}"


def _check_exportable(config: MemoryConfig, dtype: torch.dtype, trigger_active: bool | None) -> None:
    if config.form != "embedding":
        raise ConfigError(
            f"the memory has form {config.form!r}; the public code knows latents as input embeddings only, so "
            "only form 'embedding' can be exported"
        )
    if config.trigger not in ("always", "lora"):
        raise ConfigError(f"the memory's trigger is {config.trigger!r}; the public code has only 'always' and 'lora'")
    if config.trigger == "always" and trigger_active:
        raise ConfigError(
            "trigger_active is True, but the memory's trigger is 'always'; there is none that could be asked"
        )
    if set(config.delimiters) != set(DELIMITERS):
        raise ConfigError(f"the memory's delimiters are {config.delimiters}; the public code has only {DELIMITERS}")
    if dtype not in (torch.float32, torch.bfloat16):
        raise ConfigError(f"dtype is {dtype}; expected torch.float32 or torch.bfloat16")


def _public_config(config: MemoryConfig, *, trigger_active: bool) -> dict[str, Any]:
    lora = {
        "r": config.rank,
        "lora_alpha": config.alpha,
        "target_modules": list(config.target_modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
    return {
        "model_type": "memgen",
        "prompt_latents_len": config.latents,
        "inference_latents_len": config.inference_latents,
        "max_prompt_aug_num": 1,
        "max_inference_aug_num": config.max_insertions,
        "weaver_lora_config": lora,
        "trigger_lora_config": lora,
        "trigger_active": trigger_active,
    }


def _layout(memory: Memory, head: nn.Linear | None) -> dict[str, dict[str, Tensor]]:
    """The memory's own tensors, by the public code's files and names: to be written, or copied into."""
    weaver = {}
    for kind, queries in (("prompt", memory.prompt_queries), ("inference", memory.inference_queries)):
        weaver[f"{kind}_query_latents"] = queries.latents.detach()
        weaver[f"{kind}_latent_ln.weight"] = queries.norm.weight.detach()
        weaver[f"{kind}_latent_ln.bias"] = queries.norm.bias.detach()
        weaver[f"{kind}_latent_scale"] = queries.scale.detach().view(1)
    projections = {
        **memory.reasoner_to_weaver.state_dict(prefix="reasoner_to_weaver."),
        **memory.weaver_to_reasoner.state_dict(prefix="weaver_to_reasoner."),
    }
    files = {"projs.bin": projections, "weaver.bin": weaver}
    if head is not None:
        files["trigger.bin"] = head.state_dict(prefix="output_layer.")
    return files
