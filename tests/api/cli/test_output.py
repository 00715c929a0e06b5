"""Tables as a terminal shows them."""

import io
import sys

import pytest

from api.cli.output import curve, heat, print_table, sparkline

ID = "6f0c2a52-4c3e-4a0e-9f0e-0d8b8f6f7f11"


def _shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rows: list[tuple[object, ...]]) -> str:
    """A table as a terminal of 80 columns shows it."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    print_table(("id", "at", "#runs", "why"), rows)
    return capsys.readouterr().out


def test_a_table_is_folded_between_words_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = _shown(capsys, monkeypatch, [(ID, "2026-11-30 21:00", 12, "nobody has rewarded any of them")]).splitlines()
    assert all(len(line) <= 80 for line in lines[1:]), "but for the marks of the heading"
    assert f"{ID}  2026-11-30 21:00    12  nobody has" in lines[1]
    assert " ".join(line.strip() for line in lines[2:]) == "rewarded any of them"


def test_what_is_too_wide_for_the_screen_stays_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = _shown(capsys, monkeypatch, [(ID, "2026-11-30 21:00", 12, ID)])
    assert shown.splitlines()[1] == f"{ID}  2026-11-30 21:00    12  {ID}"


LOSSES = [2.31, 1.5, 0.84, 0.6, 0.52]
PLAIN = "2.31 > 0.84 > 0.52 (5 steps)"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_scores_have_a_colour_on_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], terminal: pytest.MonkeyPatch
) -> None:
    def shown() -> str:
        print_table(("#a", "#b", "#c"), [(heat(0.0), heat(1.0), heat(None))])
        return capsys.readouterr().out

    red, green = "\x1b[30;48;2;242;167;160m0.0%", "\x1b[30;48;2;143;208;143m100.0%"
    assert red in (on_terminal := shown())
    assert green in on_terminal
    with terminal.context() as patch:  # of 16 colours
        patch.delenv("COLORTERM")
        few = shown()
        assert "\x1b[30;41m0.0%" in few
        assert "\x1b[30;42m100.0%" in few
    terminal.setenv("NO_COLOR", "1")
    assert "48;2" not in shown()
    terminal.delenv("FORCE_COLOR")
    assert shown().splitlines()[1].split() == ["0.0%", "100.0%", "-"]


def test_losses_are_drawn_where_the_terminal_can(terminal: pytest.MonkeyPatch) -> None:
    assert curve(LOSSES) == f"█▅▂▁▁ {PLAIN}"
    assert curve([]) == ""
    with terminal.context() as patch:
        patch.setenv("NO_COLOR", "1")
        assert curve(LOSSES) == PLAIN
    with terminal.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
        assert curve(LOSSES) == PLAIN
    terminal.delenv("FORCE_COLOR")
    assert curve(LOSSES) == PLAIN


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([3.0, 2.0, 1.0], "█▅▁"), ([1.0], "▁"), ([2.0, 2.0], "▁▁"), ([float(n) for n in range(8)], "▁▂▃▄▅▆▇█")],
)
def test_a_sparkline_goes_from_the_least_to_the_largest(values: list[float], drawn: str) -> None:
    assert sparkline(values) == drawn


def test_a_long_sparkline_shows_means() -> None:
    drawn = sparkline([float(n) for n in range(1000)])
    assert len(drawn) == 24
    assert (drawn[0], drawn[-1]) == ("▁", "█")
    assert list(drawn) == sorted(drawn)
