"""The literal, slow MemGen of memory form `cache`: the oracle of the golden tests.

One row at a time, nothing kept: for every new token the prompt is read again by the bare base, the K queries are run
again over it by a base that PEFT wrapped in its own way, and the rest is read again behind them. No batch, no padding,
no mask, no slots, no shared tensors. Only for tests: it is quadratic on purpose.
"""

import copy
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


class ReferenceWeaver:
    """A saved memory, read from its artifact folder with PEFT and safetensors alone."""

    def __init__(self, base: PreTrainedModel, folder: Path) -> None:
        self.model = PeftModel.from_pretrained(copy.deepcopy(base), folder / "weaver", is_trainable=True)
        tensors = load_file(folder / "memory.safetensors")
        self.latents = tensors["queries.latents"].clone().requires_grad_(True)
        self.scale = tensors["queries.scale"].clone().requires_grad_(True)
        self.norm_weight = tensors["queries.norm.weight"].clone().requires_grad_(True)
        self.norm_bias = tensors["queries.norm.bias"].clone().requires_grad_(True)

    def queries(self) -> Tensor:
        normed = torch.nn.functional.layer_norm(self.latents, self.latents.shape[-1:], self.norm_weight, self.norm_bias)
        return normed * self.scale

    def lora_gradients(self) -> list[Tensor]:
        return [p.grad for name, p in self.model.named_parameters() if "lora_" in name and p.grad is not None]


def next_logits(base: PreTrainedModel, weaver: ReferenceWeaver | None, prompt: list[int], answer: list[int]) -> Tensor:
    """Logits `(1 + len(answer), V)`: of the first answer token, and of each behind it."""
    cache = DynamicCache()
    if len(prompt) > 1:
        base(input_ids=torch.tensor([prompt[:-1]]), past_key_values=cache, use_cache=True)
    if weaver is not None:
        weaver.model(inputs_embeds=weaver.queries()[None], past_key_values=cache, use_cache=True)
    rest = torch.tensor([[prompt[-1], *answer]])
    logits: Tensor = base(input_ids=rest, past_key_values=cache, use_cache=True).logits
    return logits[0]


@torch.no_grad()
def generate(
    base: PreTrainedModel, weaver: ReferenceWeaver | None, prompt: list[int], new_tokens: int, stop: frozenset[int]
) -> list[int]:
    """Greedy answer, without the token that ended it."""
    answer: list[int] = []
    while len(answer) < new_tokens:
        token = int(next_logits(base, weaver, prompt, answer)[-1].argmax())
        if token in stop:
            break
        answer.append(token)
    return answer


def loss(base: PreTrainedModel, weaver: ReferenceWeaver | None, prompt: list[int], target: list[int]) -> Tensor:
    """Mean token loss of one example."""
    logits = next_logits(base, weaver, prompt, target[:-1])
    return torch.nn.functional.cross_entropy(logits.float(), torch.tensor(target))
