"""One forward pass of a base over a window of its cache, with LoRA on for chosen tokens.

`TransformersDecoder` runs any decoder-only causal LM of transformers through its own code. For the Llama family there
is a faster one (`memgen.fused_decoder`). Neither wraps or copies the model.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, PreTrainedModel

from memgen.errors import ConfigError, ModelError
from memgen.kv_cache import KVShape, Window
from memgen.lora import LoraTokens


@dataclass(frozen=True)
class Part:
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

    def forward_together(self, parts: Sequence[Part]) -> list[Tensor]:
        """`forward` of parts with no row in common, in one pass over the weights where the decoder can."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """`(..., V)` of last hidden states `(..., H)`."""
        ...


def make_decoder(model: PreTrainedModel, *, pack_weights: bool = False) -> Decoder:
    """The fastest decoder that fits the model.

    Args:
        pack_weights: hold a second copy of the weights in a layout that CPUs read faster (the Llama family only).

    Raises:
        ConfigError: the weights can't be packed here.
    """
    from memgen.fused_decoder import FusedDecoder, can_fuse

    if can_fuse(model):
        return FusedDecoder(model, pack_weights=pack_weights)
    if pack_weights:
        raise ConfigError(f"pack_weights serves the Llama family; this is {type(model).__name__}. Leave it off.")
    return TransformersDecoder(model)


class TransformersDecoder:
    """Any decoder-only model whose every layer has attention over keys and values."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._body = model.base_model
        self._modules = dict(model.named_modules())
        self.kv_shape = kv_shape(model)

    def embed(self, ids: Tensor) -> Tensor:
        return cast(Tensor, self._model.get_input_embeddings()(ids))

    def forward(
        self,
        embeds: Tensor,
        window: Window,
        lora: LoraTokens | None = None,
        *,
        present: Tensor | None = None,
        checkpointing: bool = False,
    ) -> Tensor:
        with self._checkpointed(lora) if checkpointing else self._adapted(lora):
            hidden: Tensor = self._body(
                inputs_embeds=embeds,
                attention_mask=_masks(self._model, window),
                position_ids=window.positions,
                past_key_values=_WindowCache(window),
                use_cache=True,
            ).last_hidden_state
        return hidden

    def forward_together(self, parts: Sequence[Part]) -> list[Tensor]:
        return [self.forward(part.embeds, part.window, part.lora) for part in parts]

    def logits(self, hidden: Tensor) -> Tensor:
        return output_logits(self._model, hidden)

    @contextmanager
    def _adapted(self, lora: LoraTokens | None) -> Iterator[None]:
        if lora is None:
            yield
            return
        adapters = lora

        def add(name: str, _: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
            return adapters.add(name, inputs[0], outputs)

        handles = [self._modules[name].register_forward_hook(partial(add, name)) for name in lora.names]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _checkpointed(self, lora: LoraTokens | None) -> Iterator[None]:
        """transformers' own checkpointing drops the cache, so the layers' forwards are wrapped here. What a layer
        computes again in the backward pass needs the adapters again."""
        layers = getattr(self._body, "layers", None)
        if not isinstance(layers, nn.ModuleList):
            raise ModelError(
                f"{type(self._model).__name__} has no list `layers`; turn activation_checkpointing off for this base"
            )

        def run(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            with self._adapted(lora):
                return forward(*args, **kwargs)

        for layer in layers:
            layer.forward = partial(checkpoint, partial(run, layer.forward), use_reentrant=False)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward


class _WindowCache(DynamicCache):
    """Lets transformers' attention read and write a `Window`."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self._window = window

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        return self._window.extend(layer_idx, key_states, value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int(self._window.full_mask().shape[3] - self._window.positions.shape[1])


def _masks(model: PreTrainedModel, window: Window) -> Tensor | dict[str, Tensor]:
    """Masks as the model wants them: one, or one for each kind of layer."""
    full = window.full_mask()
    config = model.config.get_text_config()
    kinds, width = set(getattr(config, "layer_types", None) or []), getattr(config, "sliding_window", None)
    if width is None or (kinds and "sliding_attention" not in kinds):
        return _as_wanted(model, full)
    near: Tensor = window.key_positions()[:, None, None, :] > window.positions[:, None, :, None] - int(width)
    if kinds == {"sliding_attention"} or not kinds:
        return _as_wanted(model, full & near)
    return {"full_attention": _as_wanted(model, full), "sliding_attention": _as_wanted(model, full & near)}


def _as_wanted(model: PreTrainedModel, mask: Tensor) -> Tensor:
    """transformers' own attention code adds its mask, torch's kernels take booleans."""
    if model.config._attn_implementation != "eager":
        return mask
    forbidden = torch.finfo(model.dtype).min
    return torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill(~mask, forbidden)


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
