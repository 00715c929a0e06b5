"""A memory as the literal reference holds it, read from its folder with PEFT, safetensors and json alone.

Weaver and trigger are each a whole copy of the base that PEFT wraps in its own way. Reads the service's artifacts and
checkpoints of the public MemGen (github.com/KANABOON1/MemGen). Imports nothing of memgen: see `tests/reference.py`.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Files(NamedTuple):
    """What a folder holds, in the words of an artifact's memory.json and memory.safetensors."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    weaver: Path
    trigger: Path


def read_artifact(folder: Path) -> Files:
    config = json.loads((folder / "memory.json").read_text())["config"]
    return Files(config, load_file(folder / "memory.safetensors"), folder / "weaver", folder / "trigger")


def read_public(folder: Path) -> Files:
    """A checkpoint of the public code. Its inactive trigger invokes always."""
    public = json.loads((folder / "config.json").read_text())
    active = public["trigger_active"]
    config = {
        "form": "embedding",
        "trigger": "lora" if active else "always",
        "latents": public["prompt_latents_len"],
        "inference_latents": public["inference_latents_len"],
        "max_insertions": public["max_inference_aug_num"],
        "delimiters": [",", ".", "\n"],
    }
    projections, weaver, trigger = (
        torch.load(folder / name, map_location="cpu", weights_only=True)
        for name in ("projs.bin", "weaver.bin", "trigger.bin")
    )
    linears = projections | ({"trigger_head": trigger["output_layer"]} if active else {})
    tensors = {f"{name}.{part}": tensor for name, linear in linears.items() for part, tensor in linear.items()}
    for kind in ("prompt", "inference"):
        tensors[f"{kind}_queries.latents"] = weaver[f"{kind}_query_latents"]
        tensors[f"{kind}_queries.norm.weight"] = weaver[f"{kind}_latent_ln"]["weight"]
        tensors[f"{kind}_queries.norm.bias"] = weaver[f"{kind}_latent_ln"]["bias"]
        tensors[f"{kind}_queries.scale"] = weaver[f"{kind}_latent_scale"].reshape(())
    return Files(config, tensors, folder / "weaver" / "weaver", folder / "trigger" / "trigger")


class ReferenceMemory:
    """A saved memory.

    `tensors` has the names of memory.safetensors; each is a float32 leaf that collects a gradient. Everything is
    computed in the base's dtype but what they take part in, which is computed in float32.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        weaver_base: PreTrainedModel | None = None,
        *,
        read: Callable[[Path], Files] = read_artifact,
    ) -> None:
        files = read(folder)
        self.tokenizer = tokenizer
        self.form: str = files.config["form"]
        self.trigger: str = files.config["trigger"]
        self.max_insertions: int = files.config["max_insertions"]
        self.delimiters: list[str] = files.config["delimiters"]
        self.reread_tokens: int = files.config.get("reread_tokens", 0)
        self.tensors = {
            name: tensor.to(base.device, torch.float32, copy=True).requires_grad_(True)
            for name, tensor in files.tensors.items()
        }
        self.weaver_lora = load_lora(weaver_base or base, files.weaver)
        self.trigger_lora = load_lora(base, files.trigger) if self.trigger == "lora" else None

    @classmethod
    def from_public(
        cls,
        base: PreTrainedModel,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        weaver_base: PreTrainedModel | None = None,
    ) -> Self:
        """A memory of form `embedding`, from a checkpoint folder of the public code."""
        return cls(base, folder, tokenizer, weaver_base, read=read_public)

    def queries(self, name: str) -> Tensor:
        """`(K, Hw)`, ready to be read by the weaver. `name` is `prompt_queries` or `inference_queries`."""
        latents, scale = self.tensors[f"{name}.latents"], self.tensors[f"{name}.scale"]
        weight, bias = self.tensors[f"{name}.norm.weight"], self.tensors[f"{name}.norm.bias"]
        queries = F.layer_norm(latents, latents.shape[-1:], weight, bias) * scale
        return queries.to(self.weaver_lora.dtype)

    def linear(self, name: str, states: Tensor) -> Tensor:
        """One of the linear maps, `reasoner_to_weaver`, `weaver_to_reasoner` or `trigger_head`, in float32."""
        return F.linear(states.float(), self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def lora_gradients(self, which: str) -> dict[str, Tensor]:
        """Gradients of the `weaver` or `trigger`, named as in its adapter_model.safetensors; only of what took part."""
        model = {"weaver": self.weaver_lora, "trigger": self.trigger_lora}[which]
        return {
            name.replace(".default.", "."): parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }


def load_lora(base: PreTrainedModel, folder: Path) -> PeftModel:
    # PEFT leaves a trainable LoRA's dropout on, hence eval().
    return PeftModel.from_pretrained(copy.deepcopy(base), folder, is_trainable=True).eval()
