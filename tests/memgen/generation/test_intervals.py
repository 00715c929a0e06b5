"""Intervals against published numbers."""

import pytest

from memgen.generation.intervals import wilson_interval


@pytest.mark.parametrize(
    ("right", "items", "low", "high"),
    [(50, 100, 0.4038, 0.5962), (0, 100, 0.0, 0.0370), (100, 100, 0.9630, 1.0), (1, 10, 0.0179, 0.4042)],
)
def test_wilson(right: int, items: int, low: float, high: float) -> None:
    assert wilson_interval(right, items) == pytest.approx((low, high), abs=5e-5)


def test_no_items_have_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        wilson_interval(0, 0)
