"""LoRA factors beside the base, added to chosen tokens only (Hu et al., arXiv 2106.09685).

PEFT switches an adapter on for a whole module tree and a whole batch. Here one pass over a batch may carry several
adapters, each for its own tokens: latents of different memories, with bare reasoner tokens between them. The base's
modules are never wrapped. On disk the factors have PEFT's own names and files.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig
from torch import Tensor, nn

from memgen.config import MemoryConfig
from memgen.errors import ConfigError

PEFT_PREFIX = "base_model.model."
BARE_READER = 0
"""Number of the base without any adapter among those that read texts."""
_numbers = itertools.count(BARE_READER + 1)


class Lora:
    """One adapter: factors A `(r, in)` and B `(out, r)` in float32 for each adapted linear layer."""

    def __init__(self, factors: dict[str, tuple[nn.Parameter, nn.Parameter]], rank: int, alpha: int) -> None:
        """`factors` by the module's name in the base."""
        self.factors = factors
        self.scaling = alpha / rank
        self.number = next(_numbers)
        """Tells it from every other of the process: what one has read holds for no other."""

    @classmethod
    def for_model(cls, model: nn.Module, config: MemoryConfig, generator: torch.Generator | None) -> "Lora":
        """A fresh adapter that changes nothing: A uniform as PEFT starts it, or zero without a generator; B zero.

        Raises:
            ConfigError: the base has no such linear layers.
        """
        factors = {}
        for name, module in linear_modules(model, config.target_modules):
            bound = 1 / math.sqrt(module.in_features)
            a = torch.zeros(config.rank, module.in_features)
            if generator is not None:
                a.uniform_(-bound, bound, generator=generator)
            b = torch.zeros(module.out_features, config.rank)
            factors[name] = (nn.Parameter(a.to(module.weight.device)), nn.Parameter(b.to(module.weight.device)))
        return cls(factors, config.rank, config.alpha)

    def parameters(self) -> Iterator[nn.Parameter]:
        for pair in self.factors.values():
            yield from pair

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors under the names that PEFT writes and reads."""
        state = {}
        for name, (a, b) in self.factors.items():
            state[f"{PEFT_PREFIX}{name}.lora_A.weight"] = a.detach()
            state[f"{PEFT_PREFIX}{name}.lora_B.weight"] = b.detach()
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take the values of a `state_dict` with the same keys and shapes."""
        for key, tensor in self.state_dict().items():
            tensor.copy_(state[key])

    def delta(self, name: str, inputs: Tensor) -> Tensor:
        """What the adapter adds to the output of module `name` for `inputs` `(..., in)`; float32."""
        a, b = self.factors[name]
        return nn.functional.linear(nn.functional.linear(inputs.to(a.dtype), a), b) * self.scaling


@dataclass(frozen=True)
class LoraTokens:
    """Adapters and the tokens of one forward pass that each is on for.

    `index` holds flat positions `(M,)` into the batch's `B * N` tokens; None is every token.
    """

    parts: tuple[tuple[Lora, Tensor | None], ...]

    @classmethod
    def everywhere(cls, lora: Lora) -> "LoraTokens":
        return cls(((lora, None),))

    @classmethod
    def by_row(
        cls, loras: Sequence[Lora | None], tokens: int, device: torch.device, *, adapted: int | None = None
    ) -> "LoraTokens | None":
        """Each row of a batch with `tokens` tokens a row under its own adapter, its first `adapted` or all of them.

        A row with None is the bare base's; where all are, so is the result.
        """
        distinct = {id(lora): lora for lora in loras if lora is not None}
        if not distinct:
            return None
        if len(distinct) == 1 and adapted is None and None not in loras:
            return cls.everywhere(*distinct.values())
        flat = torch.arange(len(loras) * tokens, device=device).view(len(loras), tokens)[:, :adapted]
        parts = []
        for lora in distinct.values():
            rows = torch.tensor([n for n, other in enumerate(loras) if other is lora], device=device)
            parts.append((lora, flat[rows].reshape(-1)))
        return cls(tuple(parts))

    def add(self, name: str, inputs: Tensor, outputs: Tensor) -> Tensor:
        """`outputs` `(..., out)` of the module `name` for `inputs` `(..., in)`, with the adapters' part added; without
        gradient, in place where adapters are on for some tokens only."""
        for lora, index in self.parts:
            if name not in lora.factors:
                continue
            if index is None:
                outputs = outputs + lora.delta(name, inputs).to(outputs.dtype)
            else:
                delta = lora.delta(name, inputs.flatten(0, -2).index_select(0, index)).to(outputs.dtype)
                outputs = _added(outputs.flatten(0, -2), index, delta).view(outputs.shape)
        return outputs

    def among(self, present: Tensor) -> "LoraTokens":
        """The same adapters where only the tokens at the flat positions `present` `(M,)`, ascending, are passed."""
        parts = ((lora, None if index is None else torch.searchsorted(present, index)) for lora, index in self.parts)
        return LoraTokens(tuple(parts))

    @classmethod
    def joined(cls, some: Sequence["LoraTokens | None"], counts: Sequence[int], device: torch.device) -> "LoraTokens":
        """The adapted tokens of several groups, of `counts` tokens each, where the groups follow one another."""
        found: dict[int, tuple[Lora, list[Tensor]]] = {}
        start = 0
        for lora_tokens, count in zip(some, counts, strict=True):
            for lora, index in lora_tokens.parts if lora_tokens is not None else ():
                every = torch.arange(count, device=device) if index is None else index
                found.setdefault(id(lora), (lora, []))[1].append(every + start)
            start += count
        parts = [(lora, torch.cat(places)) for lora, places in found.values()]
        if len(parts) == 1 and len(parts[0][1]) == start:
            return cls.everywhere(parts[0][0])
        return cls(tuple(parts))

    @property
    def names(self) -> set[str]:
        """Modules that any of the adapters changes."""
        return {name for lora, _ in self.parts for name in lora.factors}


def _added(outputs: Tensor, index: Tensor, delta: Tensor) -> Tensor:
    """`outputs` `(N, out)` with `delta` `(M, out)` added at `index` `(M,)`, whose positions differ."""
    if torch.is_grad_enabled():
        return outputs.index_add(0, index, delta)
    # `index_add` of bfloat16 takes ten times as long on a CPU, and copies what it leaves as it is.
    return outputs.index_copy_(0, index, outputs.index_select(0, index).add_(delta))


def linear_modules(model: nn.Module, targets: Iterable[str]) -> list[tuple[str, nn.Linear]]:
    """Linear layers whose last name is among `targets`, in the model's order.

    Raises:
        ConfigError: a target names no linear layer.
    """
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in set(targets)
    ]
    missing = sorted(set(targets) - {name.rpartition(".")[2] for name, _ in found})
    if missing:
        known = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise ConfigError(f"target_modules {missing} name no linear layer of {type(model).__name__}; it has {known}")
    return found


def peft_config(config: MemoryConfig, base_name: str) -> LoraConfig:
    """What PEFT needs beside the factors to load them."""
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=list(config.target_modules),
        bias="none",
        base_model_name_or_path=base_name,
        task_type="CAUSAL_LM",
    )
