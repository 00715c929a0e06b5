"""The Llama family's forward pass in fewer and larger kernels.

The same arithmetic as transformers' code for Llama, Mistral, Qwen2 and Qwen3, with query, key and value as one
product, gate and up as another, and grouped heads folded into the query instead of repeated keys. The model's own
weights become views into the joined ones, so there is still one copy and transformers' code still runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from memgen.backbone.decoder import DecoderPart, kv_shape, output_logits
from memgen.backbone.kv_cache import Window
from memgen.backbone.lora import LoraTokens
from memgen.backbone.packed_weights import PackedWeights

_FAMILY = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
_PLAIN_SCORES = 8_000_000
_PLAIN_CAUSAL_TOKENS = 256
"""With nothing in front of more tokens, the flash kernel wins by leaving out half of the scores."""
_SOURCES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def can_fuse(model: PreTrainedModel) -> bool:
    """Whether the model is of the family, in plain linear layers, with full attention."""
    if type(model).__name__ not in _FAMILY:
        return False
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    sliding = "sliding_attention" in kinds or (
        type(model).__name__ == "MistralForCausalLM" and getattr(config, "sliding_window", None) is not None
    )
    linear = all(type(m) is nn.Linear for n, m in model.named_modules() if n.rpartition(".")[2] in _SOURCES)
    return not sliding and linear and config.hidden_act == "silu" and not getattr(config, "mlp_bias", False)


@dataclass(frozen=True)
class _Layer:
    name: str
    norm_attention: nn.Module
    norm_mlp: nn.Module
    norm_query: nn.Module | None
    norm_key: nn.Module | None
    qkv: Tensor
    qkv_bias: Tensor | None
    out: nn.Linear
    gate_up: Tensor
    down: nn.Linear
    views: tuple[nn.Parameter, ...]
    """The model's own names of what `qkv` and `gate_up` hold."""


@dataclass(frozen=True)
class _View:
    """What every layer needs of one part's window."""

    window: Window
    bias: Tensor | None
    """`(R, 1, group * N, T)`, or `(R, 1, 1, T)` of one token: minus infinity where a query may not look."""
    plain: bool
    """Attend in plain matrix products."""
    present: Tensor | None
    """Flat positions `(M,)` of what is not padding: all but attention runs on these tokens alone."""

    def spread(self, packed: Tensor) -> Tensor:
        """`(R, N, ...)` of the tokens `(M, ...)`, with zeros for padding."""
        rows, tokens = self.window.positions.shape
        if self.present is not None:
            packed = packed.new_zeros(rows * tokens, *packed.shape[1:]).index_copy(0, self.present, packed)
        return packed.view(rows, tokens, *packed.shape[1:])

    def gather(self, spread: Tensor) -> Tensor:
        """`(M, ...)` of the tokens `(R, N, ...)`."""
        flat = spread.flatten(0, 1)
        return flat if self.present is None else flat.index_select(0, self.present)


@dataclass(frozen=True)
class _Pass:
    """What every layer of one pass needs. All but attention runs on the tokens of all parts at once."""

    views: list[_View]
    counts: list[int]
    """Tokens of each part, padding left out."""
    cos: Tensor
    """`(M, 1, head_size)`."""
    sin: Tensor
    """The same, its first half negated."""
    lora: LoraTokens | None

    def split(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """By part, of what all have `(M, ...)`."""
        return (tokens,) if len(self.counts) == 1 else torch.split(tokens, self.counts)


class FusedDecoder:
    """A `memgen.backbone.decoder.Decoder` for the family that `can_fuse` names."""

    def __init__(self, model: PreTrainedModel, *, pack_weights: bool = False) -> None:
        """`pack_weights` lays the weights out anew and frees the model's own: nothing but this decoder runs it then.

        Raises:
            ConfigError: the weights are not bfloat16 on a CPU with oneDNN.
        """
        body: Any = model.model
        config = model.config.get_text_config()
        self._model = model
        self._embed = model.get_input_embeddings()
        self._head = cast(nn.Module, model.lm_head)
        self._rotary = body.rotary_emb
        self._norm = body.norm
        self._eps = float(config.rms_norm_eps)
        self._query_heads = int(config.num_attention_heads)
        self.kv_shape = kv_shape(model)
        self._layers = [_fuse(f"model.layers.{n}", layer) for n, layer in enumerate(body.layers)]
        group, size = self._query_heads // self.kv_shape.heads, self.kv_shape.head_size
        self._widths = (self._query_heads * size, self.kv_shape.heads * size)
        self._group = group
        self._packed = self._pack() if pack_weights else None

    def embed(self, ids: Tensor) -> Tensor:
        return cast(Tensor, self._embed(ids))

    def logits(self, hidden: Tensor) -> Tensor:
        if self._packed is None:
            return output_logits(self._model, hidden)
        return self._linear(hidden, cast(Tensor, self._head.weight), None)

    def forward(
        self,
        embeds: Tensor,
        window: Window,
        lora: LoraTokens | None = None,
        *,
        present: Tensor | None = None,
        checkpointing: bool = False,
    ) -> Tensor:
        return self._forward([DecoderPart(embeds, window, lora)], present, checkpointing=checkpointing)[0]

    def forward_together(self, parts: Sequence[DecoderPart]) -> list[Tensor]:
        return self._forward(parts, None, checkpointing=False)

    def _forward(self, parts: Sequence[DecoderPart], present: Tensor | None, *, checkpointing: bool) -> list[Tensor]:
        views = [self._view(part, present) for part in parts]
        read = [view.gather(part.embeds) for view, part in zip(views, parts, strict=True)]
        hidden, passing = _joined(read), self._pass(parts, views, [len(tokens) for tokens in read])
        for number, layer in enumerate(self._layers):
            if checkpointing:
                again = checkpoint(self._run, number, layer, hidden, passing, use_reentrant=False)
                hidden = cast(Tensor, again)
            else:
                hidden = self._run(number, layer, hidden, passing)
        normed = passing.split(self._rms(hidden, self._norm))
        return [view.spread(part) for view, part in zip(views, normed, strict=True)]

    def _run(self, number: int, layer: _Layer, hidden: Tensor, passing: _Pass) -> Tensor:
        """One layer on tokens `(M, H)`."""
        lora = passing.lora
        normed = self._rms(hidden, layer.norm_attention)
        joined = self._linear(normed, layer.qkv, layer.qkv_bias)
        query, key, value = torch.split(joined, [self._widths[0], self._widths[1], self._widths[1]], dim=-1)
        if lora is not None:
            attention = f"{layer.name}.self_attn"
            query = lora.add(f"{attention}.q_proj", normed, query)
            key = lora.add(f"{attention}.k_proj", normed, key)
            value = lora.add(f"{attention}.v_proj", normed, value)
        size = self.kv_shape.head_size
        query, key, value = (part.reshape(len(hidden), -1, size) for part in (query, key, value))
        if layer.norm_query is not None and layer.norm_key is not None:
            query, key = self._rms(query, layer.norm_query), self._rms(key, layer.norm_key)
        query, key = _rotate(query, passing.cos, passing.sin), _rotate(key, passing.cos, passing.sin)
        mixed = []
        for view, *own in zip(passing.views, *map(passing.split, (query, key, value)), strict=True):
            queries, new_keys, new_values = (view.spread(part) for part in own)
            keys, values = view.window.extend(number, new_keys.transpose(1, 2), new_values.transpose(1, 2))
            mixed.append(view.gather(self._attend(queries, keys, values, view)))
        attended = _joined(mixed)
        hidden = hidden + self._apply(layer.out, f"{layer.name}.self_attn.o_proj", attended, lora)
        normed = self._rms(hidden, layer.norm_mlp)
        gate, up = self._linear(normed, layer.gate_up, None).chunk(2, dim=-1)
        if lora is not None:
            gate = lora.add(f"{layer.name}.mlp.gate_proj", normed, gate)
            up = lora.add(f"{layer.name}.mlp.up_proj", normed, up)
        return hidden + self._apply(layer.down, f"{layer.name}.mlp.down_proj", F.silu(gate) * up, lora)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, view: _View) -> Tensor:
        """`(R, N, heads * head_size)` of queries `(R, N, heads, head_size)`."""
        rows, tokens, _, size = query.shape
        if view.window.causal and not view.plain:
            mixed = F.scaled_dot_product_attention(
                query.transpose(1, 2), keys, values, is_causal=True, enable_gqa=self._group > 1
            )
            return mixed.transpose(1, 2).reshape(rows, tokens, -1)
        # The heads that share keys become further queries of one head: no key is repeated in memory.
        heads = self.kv_shape.heads
        folded = query.view(rows, tokens, heads, self._group, size).permute(0, 2, 3, 1, 4)
        folded = folded.reshape(rows, heads, self._group * tokens, size)
        if view.plain:
            scores = torch.matmul(folded * size**-0.5, keys.transpose(2, 3))
            scores = scores if view.bias is None else scores + view.bias
            mixed = torch.matmul(scores.softmax(dim=-1), values)
        else:
            mixed = F.scaled_dot_product_attention(folded, keys, values, attn_mask=view.bias)
        mixed = mixed.view(rows, heads, self._group, tokens, size).permute(0, 3, 1, 2, 4)
        return mixed.reshape(rows, tokens, -1)

    def _pass(self, parts: Sequence[DecoderPart], views: list[_View], counts: list[int]) -> _Pass:
        positions = _joined([view.gather(part.window.positions) for view, part in zip(views, parts, strict=True)])
        cos, sin = (part[0] for part in self._rotary(parts[0].embeds, positions[None]))
        half = self.kv_shape.head_size // 2
        # rotate_half(x) * sin is x with its halves swapped, times sin with its first half negated.
        signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)[:, None]
        loras = [
            part.lora.among(view.present) if part.lora is not None and view.present is not None else part.lora
            for view, part in zip(views, parts, strict=True)
        ]
        lora = loras[0]
        if len(parts) > 1:
            lora = LoraTokens.joined(loras, counts, positions.device) if any(loras) else None
        return _Pass(views, counts, cos[:, None], signed, lora)

    def _view(self, part: DecoderPart, present: Tensor | None) -> _View:
        embeds, window = part.embeds, part.window
        index = None if present is None or bool(present.all()) else present.flatten().nonzero().squeeze(1)
        rows, tokens = embeds.shape[:2]
        # On a CPU, plain products beat the flash kernel unless there is one query or very many (research/method.md).
        on_cpu, mask = embeds.device.type == "cpu", window.mask
        if window.causal and on_cpu and tokens <= _PLAIN_CAUSAL_TOKENS and not torch.is_grad_enabled():
            mask = window.full_mask()
        scores = self._query_heads * (0 if mask is None else mask.numel())
        plain = on_cpu and rows * tokens > 1 and scores <= _PLAIN_SCORES and not (window.causal and mask is None)
        bias = None
        if mask is not None:
            forbidden = torch.zeros(mask.shape, dtype=embeds.dtype, device=embeds.device)
            bias = forbidden.masked_fill_(~mask, -torch.inf)
            if bias.shape[2] > 1:
                bias = bias.repeat(1, 1, self._group, 1)
        return _View(window, bias, plain, index)

    def _apply(self, module: nn.Linear, name: str, inputs: Tensor, lora: LoraTokens | None) -> Tensor:
        outputs = self._linear(inputs, module.weight, module.bias)
        return outputs if lora is None else lora.add(name, inputs, outputs)

    def _linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._packed is None:
            return F.linear(inputs, weight, bias)
        return self._packed.multiply(inputs, weight, bias)

    def _pack(self) -> PackedWeights:
        packed = PackedWeights()
        for layer in self._layers:
            for weight in (layer.qkv, layer.out.weight, layer.gate_up, layer.down.weight):
                packed.take(weight)
            for view in layer.views:
                view.data = view.new_empty(0)
        head = cast(Tensor, self._head.weight)
        packed.take(head, keep=head is self._embed.weight)
        return packed

    def _rms(self, inputs: Tensor, norm: nn.Module) -> Tensor:
        return F.rms_norm(inputs, (inputs.shape[-1],), cast(Tensor, norm.weight), self._eps)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)


def _fuse(name: str, layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    sources = (attention.q_proj, attention.k_proj, attention.v_proj)
    return _Layer(
        name=name,
        norm_attention=layer.input_layernorm,
        norm_mlp=layer.post_attention_layernorm,
        norm_query=getattr(attention, "q_norm", None),
        norm_key=getattr(attention, "k_norm", None),
        qkv=_join([source.weight for source in sources]),
        qkv_bias=None if sources[0].bias is None else _join([source.bias for source in sources]),
        out=attention.o_proj,
        gate_up=_join([mlp.gate_proj.weight, mlp.up_proj.weight]),
        down=mlp.down_proj,
        views=tuple(source.weight for source in (*sources, mlp.gate_proj, mlp.up_proj)),
    )


def _join(parts: list[nn.Parameter]) -> Tensor:
    """One tensor of all `parts` along the first dimension; the parts become views into it."""
    # The first user may be in inference mode, whose tensors could never be trained through.
    with torch.inference_mode(False), torch.no_grad():
        joined = torch.cat([part.data for part in parts])
        for part, view in zip(parts, torch.split(joined, [part.shape[0] for part in parts]), strict=True):
            part.data = view
    return joined
