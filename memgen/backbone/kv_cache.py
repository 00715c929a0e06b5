"""Keys and values of a frozen base, as slots per row.

A row's token at position `p` stands in its slot `p`, whatever the other rows do: a row that weaves takes K slots and
its neighbours take none. What is behind a row's length is garbage, masked and written over; so dropping temporary
tokens is not counting them. It knows no weaver and no sampling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

BLOCK = 64
"""Slots by which caches grow."""


@dataclass(frozen=True)
class KVShape:
    """What one token's keys and values are like in every layer."""

    layers: int
    heads: int
    head_size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.layers * self.heads * self.head_size * self.dtype.itemsize


@dataclass(frozen=True)
class Prefix:
    """A prompt that the base has read."""

    kv: Tensor
    """`(layers, 2, heads, T, head_size)`."""
    state: Tensor
    """`(H,)`, the last hidden state of the last token."""

    @property
    def tokens(self) -> int:
        return int(self.kv.shape[3])


def right_padded(prefixes: Sequence[Prefix]) -> Tensor:
    """Keys and values of unequal prefixes in one tensor: `(layers, 2, R, heads, T, head_size)`, zeros behind each."""
    depth, _, heads, _, size = prefixes[0].kv.shape
    held = prefixes[0].kv.new_zeros(depth, 2, len(prefixes), heads, max(p.tokens for p in prefixes), size)
    for row, prefix in enumerate(prefixes):
        held[:, :, row, :, : prefix.tokens] = prefix.kv
    return held


class Window(Protocol):
    """What one forward pass of N new tokens in R rows sees of the past."""

    positions: Tensor
    """`(R, N)`."""
    mask: Tensor | None
    """`(R, 1, N, T)` bool, true where a token may look; None if it may look at everything, or if `causal`."""
    causal: bool
    """Nothing stands in front of the new tokens: plain causal attention."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take the new `(R, heads, N, head_size)`; returns all that is seen, `(R, heads, T, head_size)`."""
        ...

    def full_mask(self) -> Tensor:
        """`mask`, written out."""
        ...

    def key_positions(self) -> Tensor:
        """`(R, T)`: the position of what stands in each slot seen."""
        ...


class SlotCache:
    """Keys and values of `B` rows. `lengths[b]` is row b's number of tokens, and its next position.

    Rows stand densely. Room for a few more may be held, so that one that joins seldom moves the others.
    """

    def __init__(self, shape: KVShape, rows: int, capacity: int = BLOCK) -> None:
        self.shape = shape
        self.lengths = [0] * rows
        self._hidden: list[tuple[int, ...]] = [()] * rows
        """Slots of each row that count in its length and that no later token sees."""
        self._held_rows = rows
        self._keys, self._values = (self._empty(rows, capacity) for _ in range(2))

    @classmethod
    def of_prefixes(cls, shape: KVShape, prefixes: Sequence[Prefix], capacity: int = 0) -> "SlotCache":
        """One row for each prompt; the same prompt may stand in many rows."""
        cache = cls(shape, len(prefixes), max(capacity, *(p.tokens for p in prefixes)))
        for row, prefix in enumerate(prefixes):
            cache.fill(row, prefix.kv)
        return cache

    @property
    def capacity(self) -> int:
        return int(self._keys[0].shape[2])

    @property
    def held_rows(self) -> int:
        """Rows that there is room for."""
        return self._held_rows

    @property
    def bytes(self) -> int:
        return self.held_rows * self.capacity * self.shape.bytes_per_token

    def append(self) -> int:
        """A new row, empty, behind the others; its number."""
        row = len(self.lengths)
        if row < self.held_rows:
            # Not garbage: see `_empty`.
            for held in (*self._keys, *self._values):
                held[row].zero_()
        else:
            self.hold(row + 1)
        self.lengths.append(0)
        self._hidden.append(())
        return row

    def drop(self, row: int) -> None:
        """Remove a row; the last one takes its place."""
        last = len(self.lengths) - 1
        if row != last:
            length = self.lengths[last]
            for held in (*self._keys, *self._values):
                # What stood behind the moved row's length must not be seen either, if ever it was no number.
                held[row, :, :length] = held[last, :, :length]
                held[row, :, length:].zero_()
            self.lengths[row], self._hidden[row] = length, self._hidden[last]
        self.lengths.pop()
        self._hidden.pop()

    def hold(self, rows: int) -> None:
        """Have room for exactly `rows` rows, of which there are no more now. Where memory runs out, what the rows hold
        stays."""
        used = len(self.lengths)
        self._held_rows = min(rows, self._held_rows)
        for held in (self._keys, self._values):
            # One layer at a time, so that little is held twice.
            for layer, old in enumerate(held):
                new = old.new_zeros(rows, *old.shape[1:])
                new[:used] = old[:used]
                held[layer] = new
        self._held_rows = rows

    def copy_from(self, other: "SlotCache", source: int, row: int, length: int) -> None:
        """Put the first `length` tokens of another cache's row at the start of an empty row."""
        pairs = zip((*self._keys, *self._values), (*other._keys, *other._values), strict=True)
        for ours, theirs in pairs:
            ours[row, :, :length] = theirs[source, :, :length]
        self.lengths[row] = length
        self._hidden[row] = tuple(slot for slot in other._hidden[source] if slot < length)

    def fill(self, row: int, kv: Tensor) -> None:
        """Put `(layers, 2, heads, T, head_size)` at the start of an empty row."""
        length = kv.shape[3]
        self.reserve(length)
        for layer in range(self.shape.layers):
            self._keys[layer][row, :, :length] = kv[layer, 0]
            self._values[layer][row, :, :length] = kv[layer, 1]
        self.lengths[row] = length

    def read(self, row: int, length: int) -> Tensor:
        """A copy of a row's first `length` tokens: `(layers, 2, heads, length, head_size)`."""
        parts = zip(self._keys, self._values, strict=True)
        return torch.stack([torch.stack([k[row, :, :length], v[row, :, :length]]) for k, v in parts])

    def window(self, rows: Sequence[int], tokens: int) -> "SlotWindow":
        """Room for `tokens` new tokens in each of `rows`. They stay only when `advance` counts them."""
        self.reserve(max(self.lengths[row] for row in rows) + tokens)
        return SlotWindow(self, rows, tokens)

    def advance(self, rows: Sequence[int], counts: Sequence[int]) -> None:
        """Count the tokens that a forward pass has just written."""
        for row, count in zip(rows, counts, strict=True):
            self.lengths[row] += count

    def hide(self, row: int, slots: Sequence[int]) -> None:
        """Let no token that is read from now on see these of a row's tokens, as if they had never been; positions
        stay."""
        self._hidden[row] = (*self._hidden[row], *slots)

    def hidden(self, row: int) -> tuple[int, ...]:
        """Slots that no token of the row sees any more."""
        return self._hidden[row]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        index = torch.tensor(rows, device=self.shape.device)
        self._keys = [k.index_select(0, index) for k in self._keys]
        self._values = [v.index_select(0, index) for v in self._values]
        self.lengths = [self.lengths[row] for row in rows]
        self._hidden = [self._hidden[row] for row in rows]
        self._held_rows = len(rows)

    def reserve(self, slots: int) -> None:
        """Have room for `slots` tokens in every row, and for little more: passes look at all slots."""
        if slots <= self.capacity:
            return
        wanted = -(-slots // BLOCK) * BLOCK
        used = max(self.lengths)
        for held in (self._keys, self._values):
            grown = self._empty(self.held_rows, wanted)
            for old, new in zip(held, grown, strict=True):
                new[:, :, :used] = old[:, :, :used]
            held[:] = grown

    def layer(self, number: int) -> tuple[Tensor, Tensor]:
        """Keys and values `(B or more, heads, capacity, head_size)`."""
        return self._keys[number], self._values[number]

    def _empty(self, rows: int, capacity: int) -> list[Tensor]:
        # Zeros, not garbage: a masked NaN would still poison a sum.
        size = (rows, self.shape.heads, capacity, self.shape.head_size)
        return [torch.zeros(size, dtype=self.shape.dtype, device=self.shape.device) for _ in range(self.shape.layers)]


class SlotWindow:
    """A `Window` on some rows of a `SlotCache`, written in place."""

    def __init__(self, cache: SlotCache, rows: Sequence[int], tokens: int) -> None:
        self._cache, self._rows, self._tokens = cache, list(rows), tokens
        device = cache.shape.device
        starts = [cache.lengths[row] for row in rows]
        needed = max(starts) + tokens
        # Several rows look at all slots under a mask: products of a slice would copy it first.
        self._slots = needed if len(rows) == 1 or max(starts) == 0 else cache.capacity
        level = min(starts) == max(starts)
        first = self._rows[0]
        self._span = slice(first, first + len(rows)) if self._rows == list(range(first, first + len(rows))) else None
        self._index = None if self._span else torch.tensor(self._rows, device=device)
        start = torch.tensor(starts, device=device)
        self.positions = start[:, None] + torch.arange(tokens, device=device)
        self.causal = level and starts[0] == 0 and tokens > 1
        self._unseen = self._hidden_slots() if any(map(cache.hidden, self._rows)) else None
        sees_all = tokens == 1 and min(starts) + 1 == self._slots and self._unseen is None
        self.mask = None if self.causal or sees_all else self.full_mask()
        self._write = slice(starts[0], needed) if level and self._span else None
        if self._write is None:
            heads, capacity = cache.shape.heads, cache.capacity
            row = torch.tensor(self._rows, device=device)[:, None] * heads + torch.arange(heads, device=device)
            self._flat = (row[:, :, None] * capacity + self.positions[:, None, :]).flatten()

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        seen = []
        for held, new in zip(self._cache.layer(layer), (keys, values), strict=True):
            if self._write is not None:
                held[self._span, :, self._write] = new
            else:
                held.view(-1, held.shape[3]).index_copy_(0, self._flat, new.reshape(-1, held.shape[3]))
            if self._index is None:
                seen.append(held[self._span, :, : self._slots])
            else:
                seen.append(held[:, :, : self._slots].index_select(0, self._index))
        return seen[0], seen[1]

    def full_mask(self) -> Tensor:
        slots = torch.arange(self._slots, device=self.positions.device)
        past = slots <= self.positions[:, None, :, None]
        return past if self._unseen is None else past & ~self._unseen[:, None, None, :]

    def _hidden_slots(self) -> Tensor:
        """`(R, T)` bool."""
        unseen = torch.zeros(len(self._rows), self._slots, dtype=torch.bool, device=self.positions.device)
        for place, row in enumerate(self._rows):
            for slot in self._cache.hidden(row):
                unseen[place, slot] = True
        return unseen

    def key_positions(self) -> Tensor:
        return torch.arange(self._slots, device=self.positions.device).expand(len(self._rows), -1)
