"""One forward pass of a base over a window of its cache, with LoRA on for chosen tokens.

`TransformersDecoder` runs any decoder-only causal LM of transformers through its own code. For the Llama family there
is a faster one (`memgen.backbone.fused_decoder`). Neither wraps or copies the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from memgen.backbone.kv_cache import KVShape, Window
from memgen.backbone.lora import LoraTokens
from memgen.errors import ModelError


@dataclass(frozen=True)
class DecoderPart:
    """Some rows of a cache and what they read next."""

    embeds: Tensor
    """`(R, N, H)`."""
    window: Window
    lora: LoraTokens | None = None


class Decoder(Protocol):
    kv_shape: KVShape

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings `(R, N, H)` of token ids `(R, N)`."""
        ...

    def forward(
        self,
        embeds: Tensor,
        window: Window,
        lora: LoraTokens | None = None,
        *,
        present: Tensor | None = None,
        checkpointing: bool = False,
    ) -> Tensor:
        """Last hidden states, after the final norm, `(R, N, H)` of input embeddings `(R, N, H)`.

        Args:
            lora: adapters and the tokens that each is on for; None is the bare base.
            present: `(R, N)` bool, false where there is only padding, of which nothing may be read; None is no padding.
            checkpointing: keep only the layers' inputs for the backward pass.
        """
        ...

    def forward_together(self, parts: Sequence[DecoderPart]) -> list[Tensor]:
        """`forward` of parts with no row in common, in one pass over the weights where the decoder can."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """`(..., V)` of last hidden states `(..., H)`."""
        ...


def kv_shape(model: PreTrainedModel) -> KVShape:
    """Raises ModelError if the model is not a decoder with attention in every layer."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if heads is None or not kinds <= {"full_attention", "sliding_attention"}:
        raise ModelError(
            f"{type(model).__name__} has layers without a key/value cache ({sorted(kinds)}); expected a decoder with "
            "attention in every layer"
        )
    return KVShape(
        layers=int(config.num_hidden_layers),
        heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_size=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        dtype=model.dtype,
        device=model.device,
    )


def output_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The model's head on last hidden states, with the scalings that some families put behind it."""
    config = model.config.get_text_config()
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    logits: Tensor = head(hidden)
    if (scale := getattr(config, "logit_scale", None)) is not None:
        logits = logits * scale
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits
