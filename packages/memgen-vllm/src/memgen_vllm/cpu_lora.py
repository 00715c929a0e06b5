"""In the worker, on a CPU: LoRA for chosen tokens only.

vLLM's own torch operations gather a copy of the factors for every token of a batch, and take index -1 (no adapter) for
the last slot, so that a batch which mixes adapted and bare tokens is wrong once all slots are in use. Here the tokens
of each slot are picked out, and nothing at all is computed for the others.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class SlotRows:
    """The tokens of a step that the adapter in one slot is on for."""

    slot: int
    rows: Tensor
    run: slice | None
    """The same as a slice, where they stand in a row: that needs no copies."""

    @classmethod
    def of(cls, slot: int, rows: Tensor) -> Self:
        first, last = int(rows[0]), int(rows[-1])
        return cls(slot, rows, slice(first, last + 1) if last - first + 1 == len(rows) else None)

    def take(self, x: Tensor) -> Tensor:
        return x[self.run] if self.run is not None else x.index_select(0, self.rows)

    def put(self, y: Tensor, block: Tensor) -> None:
        """Write back what `take` took, if it was a copy: `index_add_` on parts of rows takes twenty times as long."""
        if self.run is None:
            y.index_copy_(0, self.rows, block)


def rows_by_slot(indices: Tensor) -> list[SlotRows]:
    """Of each token's slot `(N,)`, -1 being none."""
    slots = sorted({slot for slot in indices.tolist() if slot >= 0})
    return [SlotRows.of(slot, (indices == slot).nonzero()[:, 0]) for slot in slots]


def update_metadata(_original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """`PunicaWrapperCPU.update_metadata`, which has room for one run of equal adapters a request; here are three."""
    self._update_base_metadata(*args, **kwargs)
    self.memgen_rows = rows_by_slot(self.token_lora_indices)


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
    for each in self.memgen_rows:
        inputs, block = each.take(x).float(), each.take(y)
        start = 0
        for a, b, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            block[:, start : start + size] += _delta(inputs, a[each.slot, 0], b[each.slot, 0])[:, :size] * scale
            start += size
        each.put(y, block)


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
    for each in rows_by_slot(self.sampler_indices):
        block = each.take(y)
        delta = _delta(each.take(x).float(), lora_a_stacked[each.slot, 0], lora_b_stacked[each.slot, 0])
        block[:, : delta.shape[1]] += delta * scale
        each.put(y, block)


def _delta(inputs: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.linear(torch.nn.functional.linear(inputs, a.float()), b.float())
