"""A base with one LoRA on for every token, in the engine that also serves memories.

The factors stay beside the weights in float32, as they were trained: merged into weights of bfloat16 they would be
rounded. The base is not copied.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from memgen.backbone.decoder import Decoder, DecoderPart
from memgen.backbone.kv_cache import KVShape, Window
from memgen.backbone.loading import Backbone
from memgen.backbone.lora import Lora, LoraTokens


class AdaptedDecoder:
    """A `memgen.backbone.decoder.Decoder` that adds the LoRA for every token."""

    def __init__(self, decoder: Decoder, lora: Lora) -> None:
        self.kv_shape: KVShape = decoder.kv_shape
        self._decoder = decoder
        self._lora = LoraTokens.everywhere(lora)

    def embed(self, ids: Tensor) -> Tensor:
        return self._decoder.embed(ids)

    def forward(
        self,
        embeds: Tensor,
        window: Window,
        lora: LoraTokens | None = None,
        *,
        present: Tensor | None = None,
        checkpointing: bool = False,
    ) -> Tensor:
        """Run the base's forward pass with the adapter on.

        Raises:
            ValueError: `lora` is given, which would be a memory's; none is woven into an adapted base.
        """
        if lora is not None:
            raise ValueError("an adapted base serves without memories; got the adapters of one")
        return self._decoder.forward(embeds, window, self._lora, present=present, checkpointing=checkpointing)

    def forward_together(self, parts: Sequence[DecoderPart]) -> list[Tensor]:
        return [self.forward(part.embeds, part.window, part.lora) for part in parts]

    def logits(self, hidden: Tensor) -> Tensor:
        return self._decoder.logits(hidden)


@dataclass(frozen=True)
class AdaptedBackbone(Backbone):
    """Shares its weights and its decoder's joined products with `bare`."""

    bare: Backbone = field(kw_only=True)
    lora: Lora = field(kw_only=True)

    @functools.cached_property
    def decoder(self) -> Decoder:
        return AdaptedDecoder(self.bare.decoder, self.lora)


def adapted(bare: Backbone, lora: Lora) -> AdaptedBackbone:
    """`bare` with `lora` on for every token."""
    return AdaptedBackbone(
        bare.name, bare.revision, bare.model, bare.tokenizer, bare.pack_weights, bare=bare, lora=lora
    )
