"""When cron expressions are due: across daylight-saving changes, after missed times, and when they make no sense."""

from datetime import UTC, datetime

import pytest

from registry.errors import InvalidSchedule
from registry.schedules.cron import MOST_COUNTED, Cron


def _upcoming(expression: str, zone: str, after: datetime, count: int) -> list[str]:
    return [f"{due:%m-%d %H:%M}" for due in Cron(expression, zone).upcoming(after, count)]


def test_a_time_is_read_in_its_zone() -> None:
    after = datetime(2026, 1, 5, 12, tzinfo=UTC)
    assert _upcoming("0 3 * * *", "UTC", after, 2) == ["01-06 03:00", "01-07 03:00"]
    assert _upcoming("0 3 * * *", "Asia/Kolkata", after, 2) == ["01-05 21:30", "01-06 21:30"]
    assert _upcoming("0 3 * * 1-5", "America/New_York", after, 1) == ["01-06 08:00"]


def test_a_time_that_the_change_to_summer_skips_runs_right_after_the_gap() -> None:
    """In Berlin 02:00 becomes 03:00 on 29 March 2026, at 01:00 UTC."""
    after = datetime(2026, 3, 27, 12, tzinfo=UTC)
    assert _upcoming("30 2 * * *", "Europe/Berlin", after, 3) == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]


def test_a_time_that_the_change_back_repeats_runs_once() -> None:
    """In Berlin 03:00 becomes 02:00 on 25 October 2026, at 01:00 UTC: 02:30 is at 00:30 and again at 01:30."""
    after = datetime(2026, 10, 24, 12, tzinfo=UTC)
    assert _upcoming("30 2 * * *", "Europe/Berlin", after, 2) == ["10-25 00:30", "10-26 01:30"]
    within_the_second_pass = datetime(2026, 10, 25, 1, 15, tzinfo=UTC)
    assert _upcoming("30 2 * * *", "Europe/Berlin", within_the_second_pass, 1) == ["10-26 01:30"]


def test_a_star_follows_the_clock_on_the_wall_through_both_passes() -> None:
    after = datetime(2026, 10, 24, 23, 45, tzinfo=UTC)
    assert _upcoming("*/30 * * * *", "Europe/Berlin", after, 4) == [
        "10-25 00:00",
        "10-25 00:30",
        "10-25 01:00",
        "10-25 01:30",
    ]


def test_missed_times_are_counted_to_a_limit() -> None:
    first, minutely = datetime(2026, 1, 5, 3, tzinfo=UTC), Cron("* * * * *")
    assert minutely.missed_until(first, first) == 0
    assert minutely.missed_until(first, first.replace(minute=7)) == 7
    assert minutely.missed_until(first, first.replace(year=2027)) == MOST_COUNTED


@pytest.mark.parametrize(
    ("expression", "zone", "told"),
    [
        ("* * * *", "UTC", "has 4 fields; expected five"),
        ("* * * * * *", "UTC", "has 6 fields"),
        ("61 * * * *", "UTC", "Bad minute"),
        ("0 0 30 2 *", "UTC", "Bad day-of-month"),
        ("0 0 * * *", "Mars/Olympus", "time zone 'Mars/Olympus' is not known"),
        ("0 0 * * *", "../../etc/passwd", "is not known"),
    ],
)
def test_what_makes_no_sense_is_refused(expression: str, zone: str, told: str) -> None:
    with pytest.raises(InvalidSchedule, match=told.replace("*", r"\*")):
        Cron(expression, zone).check(datetime(2026, 1, 5, tzinfo=UTC))
