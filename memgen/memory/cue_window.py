"""A cue beside a row's context: keys and values that some of the new tokens see, and that never stay.

The base reads a cue by itself, from position 0 on, so its prefix is the same for every request, version and sample,
and may be kept like a prompt's. Its positions run parallel to those of the context (as the parallel windows of Ratner
et al., arXiv 2212.10947), so a cue moves no token of the row. It knows no retrieval and no weaver.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from memgen.backbone.kv_cache import Prefix, Window, right_padded


class CuedWindow:
    """A `Window` whose rows have cues of unequal length, or none, in front of what they see.

    A layer with a sliding window sees of a cue what its positions let it see.
    """

    causal = False

    @classmethod
    def seen_at(cls, window: Window, cues: Sequence[Prefix | None], readers: Tensor) -> Self:
        """As made, with readers as indices `(M,)` into all new tokens, row after row."""
        seen = torch.zeros_like(window.positions, dtype=torch.bool)
        seen.view(-1)[readers] = True
        return cls(window, cues, seen)

    def __init__(self, window: Window, cues: Sequence[Prefix | None], readers: Tensor | None = None) -> None:
        """At least one row has a cue.

        Args:
            readers: `(R, N)` bool, the new tokens that see their row's cue; None is all.
        """
        known = [cue for cue in cues if cue is not None]
        if not known:
            raise ValueError("no row has a cue; use the window itself")
        absent = Prefix(known[0].kv[:, :, :, :0], known[0].state)
        self._window = window
        self._kv = right_padded([absent if cue is None else cue for cue in cues])
        self.positions = window.positions
        self._slots = torch.arange(self._kv.shape[4], device=self.positions.device)
        lengths = torch.tensor([0 if cue is None else cue.tokens for cue in cues], device=self.positions.device)
        seen = (self._slots < lengths[:, None])[:, None, :].expand(-1, self.positions.shape[1], -1)
        if readers is not None:
            seen = seen & readers[:, :, None]
        self.mask: Tensor | None = torch.cat([seen[:, None], window.full_mask()], dim=3)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self._window.extend(layer, keys, values)
        return torch.cat([self._kv[layer, 0], keys], dim=2), torch.cat([self._kv[layer, 1], values], dim=2)

    def full_mask(self) -> Tensor:
        if self.mask is None:
            raise RuntimeError("a CuedWindow always has a mask")
        return self.mask

    def key_positions(self) -> Tensor:
        cues = self._slots.expand(len(self.positions), -1)
        return torch.cat([cues, self._window.key_positions()], dim=1)
