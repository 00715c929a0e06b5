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


def paired_interval(lost: float, won: float, items: int) -> tuple[float, float]:
    """95% interval of the difference of two shares of the same items, of which `won` are right with the second only and
    `lost` with the first only (Agresti and Min 2005: half an item more in each of the four cells).

    For 10 lost and 2 won of 100: (-0.1460, -0.0108). Where no item differs it is not empty: of 20, (-0.0891, 0.0891).
    """
    if items < 1:
        raise ValueError("an interval needs at least one item")
    more, fewer, all_of_it = won + 0.5, lost + 0.5, items + 2
    difference = (more - fewer) / all_of_it
    half = Z_95 * math.sqrt(more + fewer - (more - fewer) ** 2 / all_of_it) / all_of_it
    return max(-1.0, difference - half), min(1.0, difference + half)
