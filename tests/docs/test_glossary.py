"""The glossary against the code: every place exists, every term is used, and no retired word is a name."""

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for package in ("api", "workers", "registry", "memgen")
    for path in sorted((ROOT / package).rglob("*.py"))
}
KEPT = {
    "standings",  # the old name of a call, a command and a path, which is told for one release
    "standing_list",
    "asked",  # a field of the reports of trained triggers, which are stored
}
"""Names with retired words that outlive them, because something outside the code has them."""


def _rows(page: str) -> Iterator[list[str]]:
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] not in ("term", "instead of") and set(line) - set("|- "):
            yield cells


USED, RETIRED = PAGE.split("## Words that are not used any more")
TERMS = [(term, where) for term, _, where in _rows(USED)]
WORDS = [old for old, _ in _rows(RETIRED)]


def _names(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg | ast.keyword):
            yield node.arg or ""
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def _words(name: str) -> str:
    """`find_servedThing` as ` find served thing `."""
    return f" {re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', name).lower().replace('_', ' ').strip()} "


@cache
def _code() -> str:
    return "\n".join(map(_words, SOURCES.values())).replace("-", " ")


@cache
def _places() -> dict[str, set[str]]:
    """Each name of the code, in words, to where it stands."""
    places: dict[str, set[str]] = defaultdict(set)
    for path, source in SOURCES.items():
        for name in set(_names(source)) - KEPT:
            places[_words(name)].add(f"{path}: {name}")
    return places


@pytest.mark.parametrize(("term", "where"), TERMS)
def test_a_term_lives_where_the_page_says(term: str, where: str) -> None:
    place = where.strip("`")
    try:
        importlib.import_module(place)
    except ModuleNotFoundError:
        module, _, name = place.rpartition(".")
        assert hasattr(importlib.import_module(module), name), f"{term}: no {place}"


@pytest.mark.parametrize("term", [term for term, _ in TERMS])
def test_a_term_is_used(term: str) -> None:
    for part in re.sub(r"\(.*?\)|\[.*?\]", "", term).replace("-", " ").split(","):
        assert re.search(rf"\b{part.strip().lower()}", _code()), f"{part!r} stands nowhere in the code"


@pytest.mark.parametrize("word", WORDS)
def test_a_retired_word_is_no_name(word: str) -> None:
    found = {place for words, places in _places().items() if f" {word} " in words for place in places}
    assert found == set()
