"""When a delivery that failed is tried again, and when no more."""

import random
from datetime import timedelta

_DELAYS = (5, 30, 120, 600, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 8 * 3600)
"""Seconds from each failed attempt to the next; together a little more than a day."""
_JITTER = 0.2
_LONGEST_WISH = 3600
MOST_ATTEMPTS = len(_DELAYS) + 1
HOLDING_ATTEMPTS = 3
"""A delivery that failed so often at most holds back the later ones of its webhook until it is tried again: for less
than four minutes together."""


def delay_after(attempts: int, *, wished_seconds: int = 0) -> timedelta | None:
    """The time until the next attempt after `attempts` that failed; None if there is none.

    Args:
        wished_seconds: what the receiver asked for by `Retry-After`; it lengthens the time, by an hour at most.
    """
    if attempts >= MOST_ATTEMPTS:
        return None
    jitter = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - nothing is secret about it
    return timedelta(seconds=max(_DELAYS[attempts - 1] * jitter, min(wished_seconds, _LONGEST_WISH)))
