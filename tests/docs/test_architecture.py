"""The architecture page and its picture against the tree."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.pages import PAGES, ROOT

LINKED = sorted([*PAGES, *(ROOT / "research").rglob("*.md")])


@pytest.fixture(scope="module")
def picture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architecture_picture", ROOT / "docs" / "architecture_picture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_that_of_the_import_graph(picture: ModuleType) -> None:
    house = picture.packages((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    drawn = picture.draw(house, picture.arrows(list(house)))
    committed = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == committed, "make architecture"


def test_every_room_is_in_the_picture(picture: ModuleType) -> None:
    house = picture.packages((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for name, package in house.items():
        folder = ROOT / name
        rooms = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
        assert {room for layer in package.layers for room in layer} == rooms - {"__init__", "__main__"}


def test_the_code_names_pages_that_exist() -> None:
    sources = [
        path for package in ("api", "workers", "registry", "memgen", "bench") for path in (ROOT / package).rglob("*.py")
    ]
    named = {
        (path.name, page) for path in sources for page in re.findall(r"(?:docs|research)/[\w/-]+\.md", path.read_text())
    }
    assert named
    assert {(name, page) for name, page in named if not (ROOT / page).exists()} == set()


def _anchors(page: Path) -> set[str]:
    """What links may name of a page: its headings, as GitHub writes them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL), re.MULTILINE
    )
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_name_files_and_headings_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        place = page.parent / name if name else page
        if not place.exists() or (anchor and anchor not in _anchors(place)):
            missing.append(link)
    paths = re.findall(r"`((?:api|workers|registry|memgen|bench|tests|migrations|docs|research)/[\w./-]*)`", text)
    missing += [path for path in paths if not (ROOT / path).exists()]
    assert missing == []
