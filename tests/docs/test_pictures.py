"""Pictures of the docs: light, and each shown somewhere."""

from pathlib import Path

from tests.docs.pages import PAGES

PICTURES = sorted((Path(__file__).resolve().parents[2] / "docs" / "pictures").glob("*.png"))


def test_every_picture_is_light_and_shown() -> None:
    assert {picture.stem for picture in PICTURES} == {"overview", "adapter", "gate", "route", "playground"}
    text = "\n".join(page.read_text() for page in PAGES)
    assert [picture.name for picture in PICTURES if f"pictures/{picture.name}" not in text] == []
    assert [picture.name for picture in PICTURES if picture.stat().st_size > 120_000] == []
