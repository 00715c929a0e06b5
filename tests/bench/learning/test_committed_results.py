"""The results in git: every figure of the cells that once were files of their own is in the pack."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.learning.cells import RESULTS
from bench.learning.pack import Pack
from bench.learning.report import LAB_BOOK, PAGE, main

CARRIED_OVER = 656
"""Cells of plan c3eb62638e1b that were one file each until d5fcae9, with the recipe. They come first, in the order of
their keys; compaction keeps that order, later results stand behind them."""
THEIR_DIGEST = "10550c93a33aa232d22c46024b95ef107ad704c221223cb4629246c7e88183b7"
COMMANDS = 33
COMMANDS_DIGEST = "63089b2c57bc76b15e577044b0a58b76db6fcb8aec5be55418d4b2d134b5436e"


def _digest(value: Any) -> str:
    """SHA-256 of the canonical JSON: equal only for equal keys and figures."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def test_every_figure_was_carried_over() -> None:
    pack = Pack(RESULTS / "c3eb62638e1b.jsonl.gz")
    keys = [key for key in pack if key not in ("plan", "made")][:CARRIED_OVER]
    assert keys == sorted(keys)
    assert _digest({key: pack.get(key) for key in keys}) == THEIR_DIGEST


def test_so_were_the_commands_that_ran() -> None:
    noted = Pack(RESULTS / "c3eb62638e1b.jsonl.gz").get("plan") or {}
    assert noted["revision"] == "sha256:75dbbed0727fe08e85caf9616aa2338b"
    assert _digest(noted["commands"][:COMMANDS]) == COMMANDS_DIGEST


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the report command writes from the committed cells, where a copy of the notes stands already."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(RESULTS, folder / "results" / "learning")
    (folder / "research").mkdir()
    shutil.copy(LAB_BOOK, folder / "research" / "learning.md")
    with pytest.MonkeyPatch.context() as patched:
        pages = f"--page {folder}/docs/results.md --lab-book {folder}/research/learning.md"
        patched.setattr("sys.argv", f"report --results {folder}/results/learning {pages}".split())
        main()
    return folder


def _figures(value: Any) -> tuple[list[Any], list[float]]:
    """(everything but numbers, in order; the numbers)."""
    if isinstance(value, dict):
        parts = [(key, *_figures(inner)) for key, inner in value.items()]
    elif isinstance(value, list):
        parts = [(None, *_figures(inner)) for inner in value]
    elif isinstance(value, float):
        return [], [value]
    else:
        return [value], []
    return [[key, shape] for key, shape, _ in parts], [number for *_, numbers in parts for number in numbers]


def test_the_summary_follows_from_the_cells(written: Path) -> None:
    """Every figure of `learning.json`, in the same order; another processor may add floats up in another order."""
    made, committed = (
        _figures(json.loads(path.read_text()))
        for path in (written / "results" / "learning.json", RESULTS.parent / "learning.json")
    )
    assert made[0] == committed[0]
    assert len(committed[1]) > 500
    assert made[1] == pytest.approx(committed[1], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("page", [PAGE, LAB_BOOK], ids=["results.md", "learning.md"])
def test_the_pages_are_what_the_command_writes(written: Path, page: Path) -> None:
    made = written / page.parent.name
    assert (made / page.name).read_text() == page.read_text()
    figures = {path.name: path.read_bytes() for path in page.with_suffix("").iterdir()}
    assert {path.name: path.read_bytes() for path in (made / page.stem).iterdir()} == figures


def test_the_page_is_short_and_its_links_lead_somewhere() -> None:
    text = PAGE.read_text()
    assert len(text.splitlines()) <= 70
    links = re.findall(r"\]\(([^)#]+)", text)
    assert len(links) >= 5
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_results_are_few_files() -> None:
    assert len([path for path in RESULTS.parent.rglob("*") if path.is_file()]) < 40
    assert list(Path(RESULTS).glob("*/*")) == []
