"""The page of formats against the code: its tables are those of the readers, word for word."""

from pathlib import Path

import pytest

from registry.trajectories.formats.formats import ALIASES, FORMATS
from registry.trajectories.formats.mapping import markdown_table

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_shows_its_own_table(name: str) -> None:
    section = PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]
    shown = [line for line in section.split("\n") if line.startswith("|")]
    assert "\n".join(shown) == markdown_table(FORMATS[name].mapping)
    assert f"| `{name}` |" in PAGE


def test_no_other_format_is_promised() -> None:
    sections = [line.removeprefix("## ") for line in PAGE.split("\n") if line.startswith("## ")]
    assert set(FORMATS) <= set(sections) <= {*FORMATS, "The endpoint /v1/traces"}
    assert all(f"`{alias}`" in PAGE for alias in ALIASES)
