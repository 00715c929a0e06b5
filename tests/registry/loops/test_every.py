"""How often a loop learns, in a word."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from registry.errors import InvalidSchedule
from registry.loops.every import WORDS, read_every
from registry.schedules.cron import Cron

NOW = datetime(2026, 1, 5, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("night", "0 3 * * *"),
        ("hour", "0 * * * *"),
        ("1h", "0 */1 * * *"),
        ("6h", "0 */6 * * *"),
        ("24h", "0 12 * * *"),
        ("15m", "*/15 * * * *"),
        ("60m", "0 * * * *"),
        (" 30 4 * * 1-5 ", "30 4 * * 1-5"),
    ],
)
def test_words_and_intervals(text: str, expression: str) -> None:
    assert read_every(text) == expression
    Cron(expression).check(NOW)


@pytest.mark.parametrize(
    "interval", ["5h", "25h", "7m", "0h", "61m", "1d", "-6h", "6", "", "nightly", "* * * *", "6h6h"]
)
def test_what_divides_nothing_evenly_or_means_nothing_is_refused(interval: str) -> None:
    with pytest.raises(InvalidSchedule):
        read_every(interval)


@pytest.mark.parametrize("hours", [1, 2, 3, 4, 6, 8, 12, 24])
def test_intervals_of_hours_are_as_long_as_they_say(hours: int) -> None:
    due = Cron(read_every(f"{hours}h")).upcoming(NOW, 5)
    assert {(later - earlier).total_seconds() / 3600 for earlier, later in pairwise(due)} == {hours}


def test_every_word_is_a_time() -> None:
    assert all(Cron(expression).check(NOW) for expression in WORDS.values())
