"""The time, always with its zone.

A machine's clock may run ahead for a while and be set back. What was due by it must not wait until the true time has
come as far: whoever reads a stored due time takes one that lies further ahead than it can for one of those.
"""

from datetime import UTC, datetime, timedelta

FARTHEST_AHEAD = timedelta(minutes=5)
"""How far ahead of this clock a moment that has passed may lie: more than the clocks of the service's machines differ
by. One beyond was read from a clock that has been set back since."""


def utc_now() -> datetime:
    return datetime.now(UTC)
