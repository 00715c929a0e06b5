"""What the proof's report makes of results."""

from pathlib import Path

import pytest

from bench.loop.agent import Result
from bench.loop.report import Hour, draw, gain, hours_json, table

HOURS = [
    Hour(0, 100, 13, {"base": 100}, trained="player@1", verdict="promoted", champion="player@1", test_won=8),
    Hour(1, 40, 10, {"player@1": 40}, poisoned=20, trained="player@2", verdict="rejected", champion="player@1"),
]


def results(*won: int) -> list[Result]:
    return [Result(f"g{number}", bool(one), 2, None) for number, one in enumerate(won)]


def test_the_gain_is_of_the_same_games() -> None:
    points, (low, high) = gain(results(*[0] * 16, *[1] * 4), results(*[1] * 12, *[0] * 4, *[1] * 4))
    assert points == 60.0
    assert 25 < low < 60 < high < 85
    assert gain(results(1, 0), results(0, 1))[0] == 0.0


def test_games_of_two_tests_are_not_compared() -> None:
    with pytest.raises(ValueError, match="other games"):
        gain(results(1, 0), list(reversed(results(1, 0))))


def test_the_table_has_a_row_an_hour() -> None:
    head, _, first, second = table(HOURS, 20).split("\n")
    assert head.count("|") == first.count("|") == second.count("|")
    assert first == "| 0 | base (100) | 13.0% [8-21] | player@1 | promoted | player@1 | 40.0% [22-61] |"
    assert second.startswith("| 1, poisoned |")


def test_equal_numbers_are_an_equal_picture(tmp_path: Path) -> None:
    document = {"hours": hours_json(HOURS), "test_games": 20, "base": {"won": 2}, "random": 0.1}
    for name in ("one.svg", "two.svg"):
        draw(document, tmp_path / name)
    one = (tmp_path / "one.svg").read_text()
    assert one == (tmp_path / "two.svg").read_text()
    assert "player@2" in one
    assert "bare base" in one
