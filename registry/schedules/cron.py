"""When a cron expression is due, in its time zone. Pure; cronsim reads the expression.

Daylight saving is handled as in Debian's cron. For expressions that name their hours and minutes, a time that the
change to summer skips runs right after the gap, and a time that the change back repeats runs once, the first time. An
expression with a star in its hours or minutes follows the clock on the wall, so it runs in both repeated hours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from registry.errors import InvalidSchedule
from registry.json_text import show

MOST_COUNTED = 1_000
"""Most due times that `missed_until` counts: a cron of every minute, found after a year, must not stop the beat."""


@dataclass(frozen=True)
class Cron:
    """An expression of five fields (minute, hour, day of month, month, day of week), read in an IANA time zone."""

    expression: str
    time_zone: str = "UTC"
    at_least: int = 1
    """New trajectories that must wait at a due time; fewer wait for the next due time."""

    def check(self, now: datetime) -> "Cron":
        """Raises InvalidSchedule: the zone is unknown, the expression is none or is never due, or `at_least` is out of
        range."""
        if not 1 <= self.at_least < 2**31:
            raise InvalidSchedule(f"after {self.at_least} new trajectories; expected at least 1")
        if len(self.expression.split()) != 5:
            raise InvalidSchedule(
                f"cron {show(self.expression)} has {len(self.expression.split())} fields; expected five: minute, hour, "
                "day of month, month, day of week, such as `0 3 * * *` for every night at three"
            )
        next(self.after(now))
        return self

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Due times strictly after `moment`, in UTC, in order, without end. Raises InvalidSchedule as `check`."""
        last = moment
        try:
            for local in CronSim(self.expression, moment.astimezone(_zone(self.time_zone))):
                found = local.astimezone(UTC)
                # Begun within the repeated hour, cronsim names times of its first pass, which are over.
                if found > last:
                    last = found
                    yield found
        except CronSimError as error:
            raise InvalidSchedule(
                f"cron {show(self.expression)}: {error}; expected such as `0 3 * * *` for every night at three"
            ) from error
        # cronsim gives up after fifty years without a match.
        raise InvalidSchedule(f"cron {show(self.expression)} is never due; choose a day that exists")

    def upcoming(self, moment: datetime, count: int) -> list[datetime]:
        return list(islice(self.after(moment), count))

    def missed_until(self, first_due: datetime, now: datetime) -> int:
        """Due times after `first_due` and not after `now`, `MOST_COUNTED` at most."""
        missed = 0
        for due in islice(self.after(first_due), MOST_COUNTED):
            if due > now:
                break
            missed += 1
        return missed


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidSchedule(
            f"time zone {show(name)} is not known; expected an IANA name, such as Europe/Berlin"
        ) from error
