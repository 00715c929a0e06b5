"""Every command of the pages is one: `memgen`'s own parsers take it, and `make` and `python -m` have what they name."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from tests.api.cli.invoking import check_names, parse
from tests.docs.pages import PAGES, ROOT, blocks, page_name, spans

WHOLE = [
    (page_name(page), line.removeprefix("$ "))
    for page in PAGES
    for block in blocks(page)
    for line in block.split("\n")
    if re.match(r"(\$ )?memgen ", line)
]
NAMED = sorted({span for page in PAGES for span in spans(page) if re.match(r"memgen (?!-)", span)})
CODE = [code for page in PAGES for code in (*blocks(page), *spans(page))]
TARGETS = {name for code in CODE for name in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)", code)}
MODULES = {
    name for code in CODE for name in re.findall(r"python -m ((?:api|bench|memgen|registry|workers)[\w.]*)", code)
}


def _words(line: str) -> Iterator[str]:
    """What a shell gives the program: up to a comment, a pipe or the next command."""
    yield from takewhile(lambda word: word not in ("|", ">", "&&"), shlex.split(line, comments=True))


def test_the_scan_finds_them() -> None:
    assert len(WHOLE) > 100
    assert len(NAMED) > 50
    assert len(TARGETS) > 8
    assert len(MODULES) > 5


@pytest.mark.parametrize(("page", "line"), WHOLE)
def test_a_command_to_type_is_taken_whole(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, *words = _words(line)
    for word in words:  # files that it reads are there
        if re.fullmatch(r"[\w-]+\.\w+", word):
            (tmp_path / word).touch()
    path = parse(words)
    assert len(path) > 1, f"{page}: {line}"


@pytest.mark.parametrize("command", NAMED)
def test_a_command_that_is_named_is_one(command: str) -> None:
    check_names(command.split()[1:])


def test_what_make_makes_is_a_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {name for name in TARGETS if not re.search(rf"^{name}:", makefile, re.MULTILINE)} == set()


def test_a_module_to_run_is_there() -> None:
    places = {name: ROOT / name.replace(".", "/") for name in MODULES}
    runs = {
        name
        for name, place in places.items()
        if place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
    }
    assert runs == MODULES
