"""A cache for training: differentiable keys and values, to which passes only ever add.

Serving's is `memgen.backbone.kv_cache`, whose slots are written in place.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from memgen.backbone.kv_cache import Prefix, right_padded


class Tape:
    """A differentiable cache of `R` rows: each pass's keys and values go behind those before, and nothing is written
    over. Which of them later passes may see is marked, so padding and temporary tokens stay and are not seen."""

    def __init__(self, prefixes: Sequence[Prefix]) -> None:
        """Starts with prefixes, right-padded, that get no gradient."""
        held = right_padded(prefixes)
        rows, width = len(prefixes), held.shape[4]
        lengths = torch.tensor([p.tokens for p in prefixes], device=held.device)
        self.layers = [(layer[0], layer[1]) for layer in held]
        self.positions = torch.arange(width, device=held.device).expand(rows, width)
        self.seen = self.positions < lengths[:, None]

    def window(self, positions: Tensor, stays: Tensor | None = None) -> "TapeWindow":
        """Room for one pass of new tokens at `positions` `(R, N)`, causal among themselves.

        Args:
            stays: `(R, N)` bool, which of them later passes may see; None is all.
        """
        window = TapeWindow(self, positions)
        stays = torch.ones_like(positions, dtype=torch.bool) if stays is None else stays
        self.positions = torch.cat([self.positions, positions], dim=1)
        self.seen = torch.cat([self.seen, stays], dim=1)
        return window


class TapeWindow:
    """A `Window` at the end of a `Tape`."""

    causal = False

    def __init__(self, tape: Tape, positions: Tensor) -> None:
        rows, tokens = positions.shape
        self.positions = positions
        self._tape, self._before = tape, list(tape.layers)
        self._key_positions = torch.cat([tape.positions, positions], dim=1)
        among = torch.ones(tokens, tokens, dtype=torch.bool, device=positions.device).tril()
        past = tape.seen[:, None, :].expand(-1, tokens, -1)
        self.mask: Tensor | None = torch.cat([past, among.expand(rows, -1, -1)], dim=2)[:, None]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        before_keys, before_values = self._before[layer]
        both = torch.cat([before_keys, keys], dim=2), torch.cat([before_values, values], dim=2)
        self._tape.layers[layer] = both
        return both

    def full_mask(self) -> Tensor:
        if self.mask is None:
            raise RuntimeError("a TapeWindow always has a mask")
        return self.mask

    def key_positions(self) -> Tensor:
        return self._key_positions
