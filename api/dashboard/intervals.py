"""Intervals of rewards as bars on one scale from 0 to 1: no script, and the numbers stand beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

from api.endpoints.routes import ArmOut

WIDTH, MARGIN = 240, 6
"""Pixels from a reward of 0 to one of 1, and beside them, so that a mark at either end is seen whole."""


@dataclass(frozen=True)
class Bar:
    x: float
    width: float
    mean: float | None


def bars_of(arms: Sequence[ArmOut]) -> dict[int, Bar]:
    """The bar of each version's interval, in pixels."""
    return {
        arm.version: Bar(
            x=MARGIN + WIDTH * max(arm.interval.low, 0.0),
            width=WIDTH * (min(arm.interval.high, 1.0) - max(arm.interval.low, 0.0)),
            mean=None if arm.mean is None else MARGIN + WIDTH * arm.mean,
        )
        for arm in arms
    }
