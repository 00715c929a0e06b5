"""What this plugin does not serve, by its name: of artifacts, of a server's settings, of requests with a memory."""

import json
from pathlib import Path
from typing import Any

from memgen_vllm.errors import NotServed
from memgen_vllm.memory import ServedMemory, adapter_path, decides_alone, read_memory
from memgen_vllm.served_base import LoadedBase

_FORMAT = 2
"""`memgen.artifacts.artifact.FORMAT`."""
_LORA_FILE = "adapter_model.safetensors"
_EMBEDDINGS = {"embed_tokens", "wte", "word_embeddings", "tok_embeddings"}


def check_artifact(folder: Path, base: LoadedBase, most_rank: int) -> None:
    """Raise NotServed unless the artifact in `folder`, whose bytes are checked, can be answered with."""
    try:
        if (folder / "memory.json").is_file():
            _check_memory(folder, base)
        _check_lora(folder, most_rank)
    except NotServed:
        raise
    except Exception as error:  # whatever stands in foreign files
        raise NotServed(f"{folder.name}: cannot be read as an artifact: {type(error).__name__}: {error}") from error


def _check_lora(folder: Path, most_rank: int) -> None:
    sha256, adapter = folder.name, adapter_path(folder)
    if not (adapter / _LORA_FILE).is_file():
        raise NotServed(f"{sha256}: has neither memory.json nor {_LORA_FILE}; expected a memory or a LoRA of PEFT")
    lora = json.loads((adapter / "adapter_config.json").read_text())
    if lora["r"] > most_rank:
        raise NotServed(f"{sha256}: its rank is {lora['r']}; start the server with --max-lora-rank of that or more")
    targets = lora.get("target_modules") or []
    if _EMBEDDINGS & set([targets] if isinstance(targets, str) else targets) or lora.get("modules_to_save"):
        raise NotServed(f"{sha256}: it adapts embeddings or saves whole modules; adapters of linear layers are served")


def _check_memory(folder: Path, base: LoadedBase) -> None:
    path = folder / "memory.json"
    described = json.loads(path.read_text())
    if described.get("format") != _FORMAT:
        raise NotServed(f"{folder.name}: format is {described.get('format')!r}; this plugin reads {_FORMAT}")
    config = read_memory(folder).config
    if config.form not in ("cache", "lora"):
        raise NotServed(
            f"{folder.name}: form is {config.form!r}; vLLM serves `cache` and `lora`, the engine `local` serves all"
        )
    if config.trigger in ("lora", "head") and not decides_alone(folder):
        raise NotServed(
            f"{folder.name}: its trigger {config.trigger!r} is trained; vLLM serves `always` and `never`, the engine "
            "`local` serves all"
        )
    if config.cue_tokens:
        raise NotServed(f"{folder.name}: it is cued from past experience; the engine `local` serves that")
    if (folder / "isolated.json").is_file():
        raise NotServed(
            f"{folder.name}: a router chooses among memories of several tasks; the engine `local` serves that, or name "
            "the memory of one task"
        )
    if not described.get("trained_steps"):
        raise NotServed(f"{folder.name}: trained_steps is {described.get('trained_steps')!r}; it was never trained")
    base.check(described, path)


def check_server(vllm_config: Any) -> None:
    """Raise NotServed if the server's settings and memories exclude each other."""
    for name, setting, way_out in (
        ("speculative decoding", vllm_config.speculative_config, "start it without --speculative-config"),
        ("a quantised base", vllm_config.model_config.quantization, "memories are trained on the base as it is"),
        ("a KV connector", vllm_config.kv_transfer_config, "start it without --kv-transfer-config"),
    ):
        if setting is not None:
            raise NotServed(f"this server runs {name} ({setting}), and no memory can be woven there; {way_out}")


def check_request(memory: ServedMemory, core_request: Any, max_model_len: int) -> None:
    """Raise NotServed unless a request of vLLM, whose prompt it has checked, can be answered with the memory.

    Lowers `max_tokens` to what fits where vLLM itself filled it in, because the client said nothing.
    """
    params, prompt, config = core_request.sampling_params, core_request.prompt_token_ids, memory.config
    if params is None or core_request.prompt_embeds is not None or core_request.mm_features:
        raise NotServed("a memory answers prompts of tokens; there is something else in this one")
    if params.prompt_logprobs is not None:
        raise NotServed("prompt_logprobs, and echo with logprobs, are not given with a memory; name the base for them")
    if not memory.weaves:
        return
    if config.max_insertions and (params.bad_words or params.repetition_detection is not None):
        raise NotServed(
            "bad_words and repetition_detection look back over the answer, where this memory weaves; leave them out"
        )
    woven = config.most_latents + len(config.tokens_to_reread(prompt))
    room = max_model_len - len(prompt) - woven
    if params.max_tokens == max_model_len - len(prompt) and room > 0:
        params.max_tokens = room
    if params.max_tokens > room:
        raise NotServed(
            f"the prompt has {len(prompt)} tokens; with up to {woven} of the memory and {params.max_tokens} new tokens "
            f"that is more than the context of {max_model_len}. Shorten the prompt or lower max_tokens"
        )
