"""Caches of rows that join and leave, by capacity."""

import random

import torch

from memgen.backbone.kv_cache import KVShape, Prefix
from memgen.backbone.row_caches import CacheRow, RowCaches, capacity_for

SHAPE = KVShape(2, 1, 4, torch.float32, torch.device("cpu"))


def filled_with(number: float, length: int) -> Prefix:
    return Prefix(torch.full((2, 2, 1, length, 4), number), torch.zeros(4))


def test_capacities_are_few_and_no_more_than_twice_what_is_needed() -> None:
    found = [capacity_for(n) for n in (1, 64, 128, 129, 256, 257, 512, 513, 1000, 1025)]
    assert found == [128, 128, 128, 256, 256, 512, 512, 1024, 1024, 2048]
    assert all(n <= capacity_for(n) < max(2 * n, 129) for n in range(1, 5000))


def test_rows_keep_what_they_hold_while_others_come_and_go() -> None:
    rng = random.Random(3)
    caches = RowCaches(SHAPE)
    rows: dict[int, tuple[CacheRow, int]] = {}
    for number in range(1, 400):
        if rows and rng.random() < 0.45:
            gone = rng.choice(list(rows))
            caches.close(rows.pop(gone)[0])
        else:
            length = rng.randrange(1, 200)
            rows[number] = caches.filled(filled_with(float(number), length), length), length
        if rows:
            growing = rng.choice(list(rows))
            caches.reserve(rows[growing][0], rng.randrange(1, 500))
        places = {(id(row.cache), row.place) for row, _ in rows.values()}
        assert len(places) == len(rows) == caches.rows
        for each, (row, length) in rows.items():
            assert row.length == length
            kept = row.cache.read(row.place, length)
            assert bool((kept == each).all())
        for row, _ in rows.values():
            assert len(row.cache.lengths) > row.place
    for row, _ in rows.values():
        caches.close(row)
    assert (caches.bytes, caches.rows) == (0, 0)


def test_what_is_held_follows_what_is_needed() -> None:
    caches = RowCaches(SHAPE)
    token = SHAPE.bytes_per_token
    rows = [caches.open(128) for _ in range(20)]
    assert 20 * 128 * token <= caches.bytes <= 24 * 128 * token
    for row in rows[3:]:
        caches.close(row)
    assert caches.bytes <= 6 * 128 * token


def test_beyond_the_most_bytes_nothing_is_held_in_advance() -> None:
    token = SHAPE.bytes_per_token
    caches = RowCaches(SHAPE, most_bytes=10 * 128 * token)
    for number in range(10):
        caches.open(128)
        assert caches.bytes <= max(10, number + 1) * 128 * token
    assert caches.bytes == 10 * 128 * token


def test_a_row_that_comes_sees_nothing_of_one_that_left() -> None:
    """Not even what is no number: a masked NaN would still poison a sum."""
    caches = RowCaches(SHAPE)
    rows = [caches.filled(filled_with(float("nan"), 60), 60) for _ in range(3)]
    for row in rows[1:]:
        caches.close(row)
    caches.close(rows[0])
    stays = caches.filled(filled_with(1.0, 5), 5)
    broken = caches.filled(filled_with(float("nan"), 60), 60)
    caches.close(broken)
    comes = caches.open(5)
    for row in (stays, comes):
        keys, values = row.cache.layer(0)
        assert not bool(keys[row.place].isnan().any() | values[row.place].isnan().any())


def test_hidden_tokens_stay_hidden_while_rows_move() -> None:
    """Of each row its own, whichever cache and place it stands in; a row that comes after it hides nothing."""
    rng = random.Random(4)
    caches = RowCaches(SHAPE)
    rows: dict[int, tuple[CacheRow, set[int]]] = {}
    for number in range(1, 200):
        if rows and rng.random() < 0.45:
            caches.close(rows.pop(rng.choice(list(rows)))[0])
        else:
            length = rng.randrange(10, 200)
            row = caches.filled(filled_with(float(number), length), length)
            hidden = set(rng.sample(range(length), rng.randrange(4)))
            row.cache.hide(row.place, sorted(hidden))
            rows[number] = row, hidden
        if rows:
            caches.reserve(rows[rng.choice(list(rows))][0], rng.randrange(1, 500))
        for row, hidden in rows.values():
            caches.reserve(row, row.length + 1)
            window = row.cache.window([row.place], 1)
            seen = window.full_mask()[0, 0, 0, : row.length + 1]
            assert {slot for slot, one in enumerate(seen.tolist()) if not one} == hidden
            assert (window.mask is None) == (not hidden), "one token sees all without a mask"


def test_a_copy_hides_what_it_holds() -> None:
    caches = RowCaches(SHAPE)
    row = caches.filled(filled_with(1.0, 20), 20)
    row.cache.hide(row.place, [3, 12])
    row.cache.hide(row.place, [15])
    assert row.cache.hidden(row.place) == (3, 12, 15)
    copied = caches.copied(row, 14, 200)
    assert copied.cache.hidden(copied.place) == (3, 12)
