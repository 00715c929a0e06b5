"""Every decoder against transformers' own forward, in float32, for several architectures with random weights."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from memgen.backbone.decoder import Decoder, DecoderPart
from memgen.backbone.fused_decoder import FusedDecoder
from memgen.backbone.kv_cache import SlotCache
from memgen.backbone.loading import make_decoder
from memgen.backbone.lora import Lora, LoraTokens
from memgen.backbone.prompt_cache import read_prompts
from memgen.backbone.tape import Tape
from memgen.backbone.transformers_decoder import TransformersDecoder
from memgen.config import MemoryConfig
from memgen.errors import ConfigError

SHAPE: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": 259, "n_embd": 64, "n_layer": 2, "n_head": 4, "bos_token_id": None, "eos_token_id": 2}
MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, SHAPE),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, SHAPE),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {**SHAPE, "head_dim": 24}),
    "mistral": (MistralConfig, MistralForCausalLM, {**SHAPE, "sliding_window": None}),
    "mistral-sliding": (MistralConfig, MistralForCausalLM, {**SHAPE, "sliding_window": 7}),
    "gemma2-eager": (Gemma2Config, Gemma2ForCausalLM, {**SHAPE, "head_dim": 16, "sliding_window": 7}),
    "gemma3-mixed": (Gemma3TextConfig, Gemma3ForCausalLM, {**SHAPE, "head_dim": 16, "sliding_window": 7}),
    "granite-scaled": (GraniteConfig, GraniteForCausalLM, {**SHAPE, "logits_scaling": 3.0}),
    "gpt2": (GPT2Config, GPT2LMHeadModel, GPT2),
}
FUSED = {"llama", "qwen2", "qwen3", "mistral"}


def _model(name: str) -> PreTrainedModel:
    config, kind, values = MODELS[name]
    torch.manual_seed(0)
    model: PreTrainedModel = kind(config(**values)).eval()
    for key, parameter in model.named_parameters():
        if key.endswith("bias") or "norm" in key:
            nn.init.normal_(parameter, mean=1.0, std=0.2)
    return model.requires_grad_(False)


@pytest.fixture(params=[(name, fused) for name in MODELS for fused in (False, True) if name in FUSED or not fused])
def case(request: pytest.FixtureRequest) -> tuple[PreTrainedModel, Decoder]:
    name, fused = request.param
    model = _model(name)
    decoder = make_decoder(model) if fused else TransformersDecoder(model)
    assert isinstance(decoder, FusedDecoder) == fused
    return model, decoder


def test_slots_give_the_models_own_logits(case: tuple[PreTrainedModel, Decoder]) -> None:
    """A prompt, then tokens behind unequal starts, then one row alone, then one token of each."""
    model, decoder = case
    ids = torch.randint(5, 200, (3, 30), generator=torch.Generator().manual_seed(1))
    expected = model(ids).logits
    cache = SlotCache(decoder.kv_shape, 3, capacity=16)

    def read(rows: list[int], starts: list[int], count: int) -> None:
        tokens = torch.stack([ids[row, start : start + count] for row, start in zip(rows, starts, strict=True)])
        logits = decoder.logits(decoder.forward(decoder.embed(tokens), cache.window(rows, count)))
        for got, row, start in zip(logits, rows, starts, strict=True):
            torch.testing.assert_close(got, expected[row, start : start + count], atol=2e-4, rtol=1e-3)

    read([0, 1, 2], [0, 0, 0], 20)
    cache.advance([0, 1, 2], [20, 11, 15])
    read([0, 1, 2], [20, 11, 15], 3)
    read([1], [11], 4)
    cache.advance([1], [4])
    read([0, 2], [20, 15], 1)
    cache.advance([0, 2], [1, 1])
    read([0, 1, 2], [21, 15, 16], 1)
    cache.keep([2, 0])
    logits = decoder.logits(decoder.forward(decoder.embed(ids[2:3, 16:17]), cache.window([0], 1)))
    torch.testing.assert_close(logits[0, 0], expected[2, 16], atol=2e-4, rtol=1e-3)


def test_a_tape_gives_the_models_own_logits(case: tuple[PreTrainedModel, Decoder]) -> None:
    """Behind prefixes of unequal length, some of the new tokens temporary."""
    model, decoder = case
    ids = torch.randint(5, 200, (2, 30), generator=torch.Generator().manual_seed(2))
    expected = model(ids).logits
    starts = torch.tensor([12, 7])
    tape = Tape(read_prompts(decoder, [tuple(ids[0, :12].tolist()), tuple(ids[1, :7].tolist())]))
    new = torch.stack([torch.cat([ids[0, 12:16], ids[0, :2]]), torch.cat([ids[1, 7:11], ids[1, :2]])])
    stays = torch.tensor([[True] * 4 + [False] * 2] * 2)
    window = tape.window(starts[:, None] + torch.arange(6), stays)
    hidden = decoder.forward(decoder.embed(new), window)
    torch.testing.assert_close(decoder.logits(hidden)[0, :4], expected[0, 12:16], atol=2e-4, rtol=1e-3)
    later = torch.stack([ids[0, 16:18], ids[1, 11:13]])
    hidden = decoder.forward(decoder.embed(later), tape.window(starts[:, None] + 4 + torch.arange(2)))
    torch.testing.assert_close(decoder.logits(hidden)[0], expected[0, 16:18], atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(decoder.logits(hidden)[1], expected[1, 11:13], atol=2e-4, rtol=1e-3)


TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.mark.parametrize("name", sorted(FUSED))
def test_fused_and_transformers_agree_with_lora_on_some_tokens(name: str) -> None:
    """Outputs and gradients, two adapters on different tokens of one batch, on every linear layer."""
    model = _model(name)
    loras = [Lora.for_model(model, MemoryConfig(rank=3, target_modules=TARGETS), _seeded(n)) for n in range(2)]
    for lora in loras:
        for number, parameter in enumerate(lora.parameters()):
            nn.init.normal_(parameter, std=0.3, generator=_seeded(number))
    use = LoraTokens(((loras[0], torch.tensor([1, 2, 9])), (loras[1], torch.tensor([4, 15]))))
    ids = torch.randint(5, 200, (2, 8), generator=_seeded(3))
    results = []
    for decoder in (TransformersDecoder(model), FusedDecoder(model)):
        for checkpointing in (False, True):
            tape = Tape(read_prompts(decoder, [tuple(range(9, 14)), tuple(range(20, 23))]))
            window = tape.window(torch.tensor([[5], [3]]) + torch.arange(8))
            hidden = decoder.forward(decoder.embed(ids), window, use, checkpointing=checkpointing)
            hidden.square().sum().backward()
            results.append([hidden.detach(), *(p.grad for lora in loras for p in lora.parameters())])
            for lora in loras:
                for parameter in lora.parameters():
                    parameter.grad = None
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            # Of the largest: what cancels in a sum is as exact as its terms, on any CPU.
            torch.testing.assert_close(one, two, atol=1e-3 * max(1.0, float(one.abs().max())), rtol=1e-3)
    bare = decoder.forward(
        decoder.embed(ids), Tape(read_prompts(decoder, [(1,), (1,)])).window(torch.arange(1, 9).repeat(2, 1))
    )
    assert not torch.allclose(bare, results[0][0])


@pytest.mark.parametrize("fused", [True, False])
def test_parts_passed_together_are_as_if_passed_alone(fused: bool) -> None:
    """Rows of one cache that read one token, and five with adapters of their own on some: states, keys and values."""
    model = _model("qwen3")
    decoder = FusedDecoder(model) if fused else TransformersDecoder(model)
    loras = [Lora.for_model(model, MemoryConfig(rank=3, target_modules=TARGETS), _seeded(n)) for n in range(3)]
    for lora in loras:
        for number, parameter in enumerate(lora.parameters()):
            nn.init.normal_(parameter, std=0.3, generator=_seeded(number))
    prompts = [tuple(range(9, 9 + count)) for count in (5, 3, 11, 7)]
    ids = torch.randint(5, 200, (4, 5), generator=_seeded(3))
    device = decoder.kv_shape.device
    results = []
    for together in (True, False):
        slots = SlotCache.of_prefixes(decoder.kv_shape, read_prompts(decoder, prompts))
        slots.reserve(16)
        some = (
            ([2], 1, None),
            ([0, 3], 5, LoraTokens.by_row(loras[:2], 5, device, adapted=4)),
            ([1], 2, LoraTokens.everywhere(loras[2])),
        )
        parts = [
            DecoderPart(decoder.embed(ids[rows, :count]), slots.window(rows, count), use) for rows, count, use in some
        ]
        if together:
            hidden = decoder.forward_together(parts)
        else:
            hidden = [decoder.forward(part.embeds, part.window, part.lora) for part in parts]
        kept = [slots.read(row, len(prompts[row]) + count) for rows, count, _ in some for row in rows]
        results.append([*hidden, *kept])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    bare = decoder.forward(
        decoder.embed(ids[[1], :2]),
        SlotCache.of_prefixes(decoder.kv_shape, read_prompts(decoder, prompts)).window([1], 2),
    )
    assert not torch.allclose(bare, results[0][2])


def test_fusing_keeps_one_copy_of_the_weights() -> None:
    model = _model("qwen2")
    before = {key: p.clone() for key, p in model.named_parameters()}
    storage = sum(
        p.untyped_storage().nbytes() for p in {p.untyped_storage().data_ptr(): p for p in model.parameters()}.values()
    )
    FusedDecoder(model)
    after = {p.untyped_storage().data_ptr(): p for p in model.parameters()}
    assert sum(p.untyped_storage().nbytes() for p in after.values()) == storage
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter, before[key])


def test_weights_that_can_not_be_packed_are_named() -> None:
    with pytest.raises(ConfigError, match=r"needs bfloat16 weights on a CPU .* these are torch.float32 on cpu"):
        make_decoder(_model("llama"), pack_weights=True)
    with pytest.raises(ConfigError, match="serves the Llama family; this is GPT2LMHeadModel"):
        make_decoder(_model("gpt2"), pack_weights=True)


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor does not multiply bfloat16 in hardware"
)
@pytest.mark.parametrize("tied", [True, False])
def test_packed_weights_give_the_same_logits_from_one_copy_and_are_not_trained_on(tied: bool) -> None:
    """In bfloat16, as they are used."""
    model = _model("qwen2").to(torch.bfloat16)
    if tied:
        model.lm_head.weight = model.get_input_embeddings().weight
    ids = torch.randint(5, 200, (3, 9), generator=_seeded(1))
    results = []
    for packed in (False, True):
        decoder = FusedDecoder(model, pack_weights=packed)
        with torch.no_grad():
            window = SlotCache(decoder.kv_shape, 3).window([0, 1, 2], 9)
            results.append(decoder.logits(decoder.forward(decoder.embed(ids), window)))
    torch.testing.assert_close(results[0], results[1], atol=0.1, rtol=0.05)
    left = {p.untyped_storage().data_ptr(): p for n, p in model.named_parameters() if n.endswith("proj.weight")}
    assert sum(p.untyped_storage().nbytes() for p in left.values()) == 0
    assert model.get_input_embeddings().weight.numel() > 0
    assert (model.lm_head.weight.numel() > 0) == tied
    embeds = decoder.embed(ids).requires_grad_(True)
    with pytest.raises(ConfigError, match="packed for answering; load the base without pack_weights"):
        decoder.forward(embeds, SlotCache(decoder.kv_shape, 3).window([0, 1, 2], 9))


def test_a_target_that_is_no_linear_layer_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"\['c_proj'\] name no linear layer of LlamaForCausalLM; it has \['down_proj'"
    ):
        Lora.for_model(_model("llama"), MemoryConfig(target_modules=("q_proj", "c_proj")), _seeded(0))


def _bytes_held(model: PreTrainedModel) -> int:
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    return sum(storages.values())


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
