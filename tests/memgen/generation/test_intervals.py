"""Intervals against published numbers."""

import random

import pytest

from memgen.generation.intervals import paired_interval, wilson_interval


@pytest.mark.parametrize(
    ("right", "items", "low", "high"),
    [(50, 100, 0.4038, 0.5962), (0, 100, 0.0, 0.0370), (100, 100, 0.9630, 1.0), (1, 10, 0.0179, 0.4042)],
)
def test_wilson(right: int, items: int, low: float, high: float) -> None:
    assert wilson_interval(right, items) == pytest.approx((low, high), abs=5e-5)


def test_no_items_have_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        wilson_interval(0, 0)


@pytest.mark.parametrize(
    ("lost", "won", "items", "low", "high"),
    [(10, 2, 100, -0.1460, -0.0108), (2, 10, 100, 0.0108, 0.1460), (0, 0, 20, -0.0891, 0.0891)],
)
def test_paired(lost: float, won: float, items: int, low: float, high: float) -> None:
    assert paired_interval(lost, won, items) == pytest.approx((low, high), abs=5e-5)


def test_paired_intervals_cover_what_is_true() -> None:
    """Of pairs with shares of 0.15 and 0.05 the difference is -0.1, in 95 of 100 samples within the interval."""
    rng = random.Random(5)
    covered = 0
    for _ in range(2000):
        draws = [rng.random() for _ in range(60)]
        lost, won = sum(d < 0.15 for d in draws), sum(0.15 <= d < 0.2 for d in draws)
        low, high = paired_interval(lost, won, 60)
        covered += low <= -0.1 <= high
    assert 0.93 <= covered / 2000 <= 0.99


def test_no_pairs_have_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        paired_interval(0, 0, 0)
