"""The weaver: K query latents and a LoRA, run over the frozen base's cache (memory form `cache`).

The queries run in front of the newest token not yet encoded, with the LoRA on. The keys and values they produce in
every layer stay in the cache and are the latent memory: hidden states appended to the reasoner's own (MemGen, arXiv
2509.24704, section 3.3). Unlike the public code there is no second encoding of the context and no projection, because
weaver and reasoner are the same network.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import Cache

from memgen.backbone import Backbone
from memgen.config import MemoryConfig
from memgen.errors import ConfigError


class QueryLatents(nn.Module):
    """K learned input embeddings: LayerNorm, then a scale (the public code's parameterisation).

    They start in-distribution: copies of token embeddings, scaled to the spread of the base's embedding table.
    """

    def __init__(self, count: int, hidden_size: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.empty(count, hidden_size))
        self.norm = nn.LayerNorm(hidden_size)
        self.scale = nn.Parameter(torch.ones(()))

    def start_from(self, embeddings: Tensor, generator: torch.Generator) -> None:
        """Copy random rows of an embedding table `(V, H)`."""
        table = embeddings.detach().float().cpu()
        rows = torch.randint(table.shape[0], (self.latents.shape[0],), generator=generator)
        with torch.no_grad():
            self.latents.copy_(table[rows])
            self.scale.fill_(table.std())

    def forward(self) -> Tensor:
        """`(K, H)` in float32."""
        normed: Tensor = self.norm(self.latents)
        return normed * self.scale


class Memory(nn.Module):
    """One memory held in an `AdapterHost`: its query latents here, its LoRA in the host under `name`."""

    def __init__(self, name: str, config: MemoryConfig, queries: QueryLatents) -> None:
        super().__init__()
        self.name = name
        self.config = config
        self.queries = queries


class AdapterHost:
    """A twin of the base that shares its tensors and carries the LoRA of every loaded memory.

    The base itself is never wrapped, so the reasoner runs at its plain speed, and one copy of the weights serves all.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._peft: PeftModel | None = None
        self._active: str | None = None
        self.memories: dict[str, Memory] = {}

    def create(self, name: str, config: MemoryConfig, *, seed: int = 0) -> Memory:
        """A new, untrained memory. Its LoRA starts as the identity (B = 0)."""
        self._add_adapter(name, lora_config(config, self.backbone.name))
        generator = torch.Generator().manual_seed(seed)
        queries = QueryLatents(config.latents, self.backbone.hidden_size)
        table = self.backbone.model.get_input_embeddings().weight
        queries.start_from(cast(Tensor, table), generator)
        with torch.no_grad():
            for parameter in self.lora_parameters(name, factor="lora_A"):
                bound = parameter.shape[1] ** -0.5
                parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
        memory = Memory(name, config, queries.to(self.backbone.device))
        self.memories[name] = memory
        return memory

    def copy(self, source: str, target: str) -> None:
        """Give the memory `target` the weights of `source`, which has the same config."""
        if self.memories[source].config != self.memories[target].config:
            raise ConfigError(
                f"a memory can only go on from one of the same config; got {self.memories[target].config}, the parent "
                f"has {self.memories[source].config}"
            )
        with torch.no_grad():
            for old, new in zip(self.trainable_parameters(source), self.trainable_parameters(target), strict=True):
                new.copy_(old)

    def remove(self, name: str) -> None:
        """Forget a loaded memory and free its tensors."""
        del self.memories[name]
        if not self.memories:
            self._peft, self._active = None, None
            return
        with self.active(next(iter(self.memories))):
            self.peft.delete_adapter(adapter_name(name))

    @property
    def peft(self) -> PeftModel:
        if self._peft is None:
            raise RuntimeError("no memory is loaded yet")
        return self._peft

    def lora_parameters(self, name: str, factor: str | None = None) -> list[nn.Parameter]:
        """The LoRA tensors of one memory, in a stable order; `factor` is `lora_A`, `lora_B` or both."""
        return [
            parameter
            for key, parameter in self.peft.named_parameters()
            if f".{adapter_name(name)}." in key and (factor or "lora_") in key
        ]

    def trainable_parameters(self, name: str) -> list[nn.Parameter]:
        return [*self.lora_parameters(name), *self.memories[name].queries.parameters()]

    def weave(self, memory: Memory, cache: Cache, mask: Tensor, positions: Tensor) -> Cache:
        """Run the queries of `memory` over `cache`, which grows by K slots holding the latents.

        Args:
            cache: of the reasoner, `T` slots.
            mask: `(B, T)`, 1 where a slot is used.
            positions: `(B,)`, the position of each row's first latent.
        """
        rows, latents = mask.shape[0], memory.config.latents
        queries = memory.queries().to(self.backbone.model.dtype).expand(rows, -1, -1)
        offsets = torch.arange(latents, device=mask.device)
        with self.active(memory.name) as model:
            model(
                inputs_embeds=queries,
                attention_mask=torch.cat([mask, mask.new_ones(rows, latents)], dim=1),
                position_ids=positions[:, None] + offsets,
                past_key_values=cache,
                use_cache=True,
            )
        return cache

    @contextmanager
    def active(self, name: str) -> Iterator[nn.Module]:
        """The twin's decoder (no LM head) with the LoRA of `name` on."""
        if self._active != name:
            for module in self.peft.modules():
                if isinstance(module, LoraLayer):
                    module.set_adapter(adapter_name(name))
            self._active = name
        yield cast(nn.Module, self.peft.get_base_model().model)

    def _add_adapter(self, name: str, config: LoraConfig) -> None:
        if self._peft is None:
            self._peft = get_peft_model(shared_twin(self.backbone), config, adapter_name=adapter_name(name))
        else:
            self._peft.add_adapter(adapter_name(name), config)
        # PEFT's own default would keep the factors in the base's bfloat16; they are trained in float32.
        for parameter in self.lora_parameters(name):
            parameter.data = parameter.data.float()
        self._active = None


def lora_config(config: MemoryConfig, base_name: str) -> LoraConfig:
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=list(config.target_modules),
        bias="none",
        base_model_name_or_path=base_name,
        task_type="CAUSAL_LM",
    )


def shared_twin(backbone: Backbone) -> Any:
    """A second module tree over the very same parameter and buffer tensors."""
    tensors = chain(backbone.model.parameters(), backbone.model.buffers())
    memo: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    twin = copy.deepcopy(backbone.model, memo)
    twin.name_or_path = backbone.name
    return twin


def adapter_name(name: str) -> str:
    """PEFT's name of a memory's LoRA: never a part of its own parameter names."""
    return f"weaver_{name}"
