"""The decoder for any decoder-only causal LM of transformers: it runs the model's own code over a `Window`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, PreTrainedModel

from memgen.backbone.decoder import DecoderPart, kv_shape, output_logits
from memgen.backbone.kv_cache import Window
from memgen.backbone.lora import LoraTokens
from memgen.errors import ModelError


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

    def forward_together(self, parts: Sequence[DecoderPart]) -> list[Tensor]:
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
