"""Intervals of measured shares."""

import math

Z_95 = 1.959964


def wilson_interval(right: float, items: int) -> tuple[float, float]:
    """95% interval of a share of `right` out of `items` (Wilson 1927), which stays within [0, 1].

    For 50 of 100: (0.4038, 0.5962).
    """
    if items < 1:
        raise ValueError("an interval needs at least one item")
    share = right / items
    denominator = 1 + Z_95**2 / items
    centre = (share + Z_95**2 / (2 * items)) / denominator
    half = Z_95 * math.sqrt(share * (1 - share) / items + Z_95**2 / (4 * items**2)) / denominator
    # Rounding may put an end a hair outside.
    return max(0.0, centre - half), min(1.0, centre + half)
