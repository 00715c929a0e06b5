"""What the reasoner reads of a row behind its prefix: tokens, and at each insertion what the weaver reads and writes.

One rule for examples that are trained on (`memgen.training.layout`) and recorded turns that are read again
(`memgen.training.trigger.forward`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from memgen.config import MemoryConfig


@dataclass
class Entries:
    """Entries of one row, as they are added. Places are indices into `ids`."""

    ids: list[int] = field(default_factory=list)
    """0 for a latent."""
    reread: list[int] = field(default_factory=list)
    """Places of prompt tokens that the weaver reads again."""
    prompt_latents: list[int] = field(default_factory=list)
    inference_latents: list[int] = field(default_factory=list)

    def read(self, token: int, woven: MemoryConfig | None, prompt_ids: Sequence[int] | None) -> None:
        """Put a token behind the others, with memory in front of it (form `cache`) or behind it (form `embedding`).

        Args:
            woven: the memory's config; None weaves nothing here.
            prompt_ids: the whole prompt at its end; None inside an answer.
        """
        if woven is None or woven.form == "embedding":
            self.ids.append(token)
        if woven is not None and prompt_ids is not None:
            self._add(woven.tokens_to_reread(prompt_ids), self.reread)
            self._add([0] * woven.latents, self.prompt_latents)
        elif woven is not None:
            self._add([0] * woven.inference_latents, self.inference_latents)
        if woven is not None and woven.form == "cache":
            self.ids.append(token)

    def _add(self, ids: Sequence[int], places: list[int]) -> None:
        places.extend(range(len(self.ids), len(self.ids) + len(ids)))
        self.ids.extend(ids)


def stacked(rows: Sequence[Entries], device: torch.device) -> tuple[Tensor, Tensor]:
    """(ids, whether there is no padding), each `(B, N)`; right-padded with 0."""
    ids = torch.zeros(len(rows), max(len(row.ids) for row in rows), dtype=torch.long)
    present = torch.zeros(ids.shape, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
        present[number, : len(row.ids)] = True
    return ids.to(device), present.to(device)


def flat_places(places: Sequence[Sequence[int]], width: int, device: torch.device) -> Tensor:
    """Indices into a batch's `B * width` of places in each row, row by row."""
    flat = [number * width + place for number, some in enumerate(places) for place in some]
    return torch.tensor(flat, dtype=torch.long, device=device)
