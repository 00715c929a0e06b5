"""In the worker, on a CPU: LoRA for chosen tokens only.

vLLM's own torch operations gather a copy of the factors for every token of a batch, and take index -1 (no adapter) for
the last slot, so that a batch which mixes adapted and bare tokens is wrong once all slots are in use. Here the tokens
of each slot are picked out, and nothing at all is computed for the others.
"""

from typing import Any

import torch
from torch import Tensor


def update_metadata(_original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """`PunicaWrapperCPU.update_metadata`, which has room for one run of equal adapters a request; here are three."""
    self._update_base_metadata(*args, **kwargs)
    indices = self.token_lora_indices
    slots = [int(slot) for slot in indices.unique() if slot >= 0]
    self.memgen_rows = [(slot, (indices == slot).nonzero()[:, 0]) for slot in slots]


def add_lora_linear(
    _original: Any,
    self: Any,
    y: Tensor,
    x: Tensor,
    lora_a_stacked: tuple[Tensor, ...],
    lora_b_stacked: tuple[Tensor, ...],
    scale: float,
    output_slices: tuple[int, ...],
    **_: Any,
) -> None:
    """`PunicaWrapperCPU.add_lora_linear`: adds to `y` `(N, out)` what the adapters make of `x` `(N, in)`.

    Args:
        lora_a_stacked: for each slice of the output `(slots, 1, r, in)`; `lora_b_stacked` `(slots, 1, out, r)`.
    """
    for slot, rows in self.memgen_rows:
        inputs = x.index_select(0, rows).float()
        start = 0
        for a, b, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            delta = torch.nn.functional.linear(inputs, a[slot, 0].float())
            delta = torch.nn.functional.linear(delta, b[slot, 0].float()) * scale
            y[:, start : start + size].index_add_(0, rows, delta[:, :size].to(y.dtype))
            start += size


def add_lora_logits(
    _original: Any,
    self: Any,
    y: Tensor,
    x: Tensor,
    lora_a_stacked: Tensor,
    lora_b_stacked: Tensor,
    scale: float,
    **_: Any,
) -> None:
    """`PunicaWrapperCPU.add_lora_logits`: the same for the logits `y` `(N, V)`, of plain adapters only."""
    indices = self.sampler_indices
    for slot in [int(slot) for slot in indices.unique() if slot >= 0]:
        rows = (indices == slot).nonzero()[:, 0]
        delta = torch.nn.functional.linear(x.index_select(0, rows).float(), lora_a_stacked[slot, 0].float())
        delta = torch.nn.functional.linear(delta, lora_b_stacked[slot, 0].float()) * scale
        y[:, : delta.shape[1]].index_add_(0, rows, delta.to(y.dtype))
