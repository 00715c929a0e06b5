"""The frozen base's key/value cache as slots per row.

Rows of a batch have unequal prompts and not every row weaves, so a slot of a row may be unused: `mask` says which are
used, `positions` where each row's next token stands. Prefixes are padded on the left; an unused slot costs a masked
key and nothing else. It knows no weaver and no sampling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from memgen.backbone import Backbone
from memgen.errors import ModelError


@dataclass
class SlotCache:
    """Keys and values of `B` rows and `T` slots.

    `mask` is `(B, T)` int64, 1 where a slot is used; `positions` is `(B,)` int64, each row's next position.
    """

    kv: DynamicCache
    mask: Tensor
    positions: Tensor

    @property
    def slots(self) -> int:
        return int(self.mask.shape[1])

    def rows(self, indices: Sequence[int]) -> "SlotCache":
        """A copy of some rows."""
        index = torch.tensor(indices, device=self.mask.device)
        pairs = [(k[index], v[index]) for k, v in layers(self.kv)]
        return SlotCache(_cache(pairs), self.mask[index], self.positions[index])

    def mark_used(self, count: int) -> None:
        """Account for `count` new slots that the model has just written in every row."""
        ones = self.mask.new_ones(self.mask.shape[0], count)
        self.mask = torch.cat([self.mask, ones], dim=1)
        self.positions = self.positions + count

    def append(self, indices: Sequence[int], kv: Sequence[tuple[Tensor, Tensor]], count: int) -> None:
        """Append `count` slots to every row: filled from `kv` in the rows `indices`, unused in the others.

        Args:
            kv: by layer, keys and values `(len(indices), heads, count, head_dim)`.
        """
        rows = self.mask.shape[0]
        index = torch.tensor(indices, device=self.mask.device)
        everywhere = len(indices) == rows and list(indices) == list(range(rows))
        for number, (keys, values) in enumerate(kv):
            if not everywhere:
                keys, values = (_spread(part, index, rows) for part in (keys, values))
            self.kv.update(keys, values, number)
        used = self.mask.new_zeros(rows, count).index_fill(0, index, 1)
        self.mask = torch.cat([self.mask, used], dim=1)
        self.positions = self.positions + used.sum(dim=1)

    def last(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the last `count` slots, by layer."""
        return [(k[:, :, -count:], v[:, :, -count:]) for k, v in layers(self.kv)]

    def forward_inputs(self, new_tokens: int) -> tuple[Tensor, Tensor]:
        """(attention mask `(B, T + N)`, position ids `(B, N)`) for encoding `N` tokens next."""
        ones = self.mask.new_ones(self.mask.shape[0], new_tokens)
        steps = torch.arange(new_tokens, device=self.mask.device)
        return torch.cat([self.mask, ones], dim=1), self.positions[:, None] + steps


def layers(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """(keys, values) by layer, each `(B, heads, T, head_dim)`."""
    found = [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]
    if len(found) != len(cache.layers):
        raise ModelError(
            "the base has layers without a key/value cache; expected a decoder with attention in every layer"
        )
    return [(cast(Tensor, layer.keys), cast(Tensor, layer.values)) for layer in found]


@torch.no_grad()
def encode_prefixes(backbone: Backbone, prefixes: Sequence[Sequence[int]]) -> SlotCache:
    """Encode a batch of unequal token sequences with the bare base, padded on the left."""
    width = max(1, max(len(prefix) for prefix in prefixes))
    ids = torch.zeros(len(prefixes), width, dtype=torch.long)
    mask = torch.zeros(len(prefixes), width, dtype=torch.long)
    for row, prefix in enumerate(prefixes):
        if prefix:
            ids[row, width - len(prefix) :] = torch.tensor(prefix)
            mask[row, width - len(prefix) :] = 1
    ids, mask = ids.to(backbone.device), mask.to(backbone.device)
    kv = DynamicCache()
    backbone.model.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        past_key_values=kv,
        use_cache=True,
    )
    return SlotCache(kv, mask, mask.sum(dim=1))


def split_prefixes(cache: SlotCache) -> list[Tensor]:
    """Each row's used slots, for keeping: `(layers, 2, heads, T_row, head_dim)`."""
    stacked = torch.stack([torch.stack(pair) for pair in layers(cache.kv)])
    lengths = cache.mask.sum(dim=1).tolist()
    return [stacked[:, :, row, :, cache.slots - length :].clone() for row, length in enumerate(lengths)]


def join_prefixes(prefixes: Sequence[Tensor]) -> SlotCache:
    """The inverse of `split_prefixes`: a batch padded on the left."""
    width = max(1, max(prefix.shape[3] for prefix in prefixes))
    depth, _, heads, _, size = prefixes[0].shape
    joined = prefixes[0].new_zeros(depth, 2, len(prefixes), heads, width, size)
    mask = torch.zeros(len(prefixes), width, dtype=torch.long, device=joined.device)
    for row, prefix in enumerate(prefixes):
        length = prefix.shape[3]
        joined[:, :, row, :, width - length :] = prefix
        mask[row, width - length :] = 1
    pairs = [(layer[0], layer[1]) for layer in joined]
    return SlotCache(_cache(pairs), mask, mask.sum(dim=1))


def _cache(pairs: Sequence[tuple[Tensor, Tensor]]) -> DynamicCache:
    cache = DynamicCache()
    for number, (keys, values) in enumerate(pairs):
        cache.update(keys, values, number)
    return cache


def _spread(part: Tensor, index: Tensor, rows: int) -> Tensor:
    return part.new_zeros(rows, *part.shape[1:]).index_copy(0, index, part)
