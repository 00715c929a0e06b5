"""Caches of rows that join and leave, by capacity: a row pays for its own length and never for its neighbours'.

Every capacity has one `SlotCache`, whose rows stand densely. A row lives in the one of the smallest capacity that has
room for it, and moves up when it outgrows it. Memory goes back as rows leave: a capacity that no row needs holds
nothing, one that few need holds room for twice as many at most.
"""

from contextlib import suppress

from memgen.backbone.kv_cache import BLOCK, KVShape, Prefix, SlotCache

_LEAST = 2 * BLOCK
"""The smallest capacity; each other is twice the one before. Finer ones leave less unused, but rows of unequal lengths
then attend in more parts, which costs more (research/decoding.md)."""
_FEW = 4
"""Rows that a cache may have room for beyond those it has, whatever they are."""


class CacheRow:
    """Where a row stands. It is kept up to date while rows move."""

    def __init__(self, cache: SlotCache, place: int) -> None:
        self.cache = cache
        self.place = place

    @property
    def length(self) -> int:
        """Tokens that the row holds."""
        return self.cache.lengths[self.place]


class RowCaches:
    """Rows of one base's keys and values."""

    def __init__(self, shape: KVShape, most_bytes: int | None = None) -> None:
        """Beyond `most_bytes` nothing is held for rows that may come; None never minds."""
        self.shape = shape
        self._most_bytes = most_bytes
        self._caches: dict[int, SlotCache] = {}
        self._rows: dict[int, list[CacheRow]] = {}

    @property
    def bytes(self) -> int:
        """What is held now, for rows that are there and rows that may come."""
        return sum(cache.bytes for cache in self._caches.values())

    @property
    def rows(self) -> int:
        return sum(map(len, self._rows.values()))

    def open(self, slots: int) -> CacheRow:
        """A new empty row with room for `slots` tokens."""
        capacity = capacity_for(slots)
        cache = self._caches.get(capacity)
        if cache is None:
            cache = self._caches[capacity] = SlotCache(self.shape, 0, capacity)
            self._rows[capacity] = []
        if len(cache.lengths) == cache.held_rows:
            self._make_room(cache)
        row = CacheRow(cache, cache.append())
        self._rows[capacity].append(row)
        return row

    def close(self, row: CacheRow) -> None:
        """Remove a row, and give back what only it needed."""
        cache, rows = row.cache, self._rows[row.cache.capacity]
        cache.drop(row.place)
        last = rows.pop()
        if last is not row:
            last.place = row.place
            rows[row.place] = last
        if not rows:
            del self._caches[cache.capacity], self._rows[cache.capacity]
        elif cache.held_rows > max(2 * len(rows), _FEW):
            with suppress(MemoryError, RuntimeError):  # no room for the smaller copy: it goes back with a later row
                cache.hold(len(rows))

    def reserve(self, row: CacheRow, slots: int) -> None:
        """Have room for `slots` tokens in a row, which may move to another cache for it."""
        if slots <= row.cache.capacity:
            return
        moved = self.open(slots)
        moved.cache.copy_from(row.cache, row.place, moved.place, row.length)
        self._rows[moved.cache.capacity][moved.place] = row
        old = CacheRow(row.cache, row.place)
        self._rows[old.cache.capacity][old.place] = old
        row.cache, row.place = moved.cache, moved.place
        self.close(old)

    def copied(self, row: CacheRow, length: int, slots: int) -> CacheRow:
        """A new row with room for `slots` tokens that begins with the first `length` tokens of another."""
        made = self.open(slots)
        made.cache.copy_from(row.cache, row.place, made.place, length)
        return made

    def filled(self, prefix: Prefix, slots: int) -> CacheRow:
        """A new row with room for `slots` tokens that begins with a prefix."""
        made = self.open(slots)
        made.cache.fill(made.place, prefix.kv)
        return made

    def _make_room(self, cache: SlotCache) -> None:
        used = len(cache.lengths)
        wanted = used + max(1, min(used // 2, _FEW))
        more = (wanted - used) * cache.capacity * self.shape.bytes_per_token
        if self._most_bytes is not None and self.bytes + more > self._most_bytes:
            self._give_back()
            wanted = used + 1
        cache.hold(wanted)

    def _give_back(self) -> None:
        for cache in self._caches.values():
            if cache.held_rows > len(cache.lengths):
                cache.hold(len(cache.lengths))


def capacity_for(slots: int) -> int:
    """Slots of the smallest cache that a row of so many tokens fits: 128, 256, 512 and so on."""
    capacity = _LEAST
    while capacity < slots:
        capacity *= 2
    return capacity
