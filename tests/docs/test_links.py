"""Links of the pages and of the tour lead somewhere in this repository; those into a page, to one of its headings."""

import json
import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, page_name

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(r"`((?:api|bench|docs|memgen|migrations|packages|registry|research|tests|workers)/[\w./-]+\.\w+)`")
TOUR = ROOT / "docs" / "tour.ipynb"


def _texts(page: Path) -> str:
    """What stands outside of fences; of a notebook, its words."""
    text = page.read_text(encoding="utf-8")
    if page == TOUR:
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def _anchors(page: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    heads = re.findall(r"^#+ (.*)$", _texts(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


LINKS = sorted(
    {
        (page_name(page), link)
        for page in (*PAGES, TOUR)
        for link in _LINK.findall(_texts(page))
        if not link.startswith(("http:", "https:"))
    }
)
NAMED = sorted({(page_name(page), path) for page in (*PAGES, TOUR) for path in _PATH.findall(_texts(page))})


def test_the_scan_finds_them() -> None:
    assert len(LINKS) > 150
    assert len(NAMED) > 20
    assert sum("#" in link for _, link in LINKS) > 20


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_a_link_leads_somewhere(page: str, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists()
    assert not anchor or target.suffix != ".md" or anchor in _anchors(target)


@pytest.mark.parametrize(("page", "path"), NAMED)
def test_a_named_file_is_there(page: str, path: str) -> None:
    assert (ROOT / path).exists() or (ROOT / page).parent.joinpath(path).exists()
