"""Tables as a terminal shows them."""

import pytest

from api.cli.output import print_table

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
