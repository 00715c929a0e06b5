"""The results in git: every figure of the cells that once were files of their own is in the pack."""

import hashlib
import json
from pathlib import Path
from typing import Any

from bench.learning.cells import RESULTS, Cells, stored_plans
from bench.learning.outcome import outcome
from bench.learning.pack import Pack

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


def test_the_summary_follows_from_the_cells() -> None:
    """Every figure of `learning.json`, byte for byte as `write_outcome` writes it."""
    [plan] = stored_plans().values()
    document = outcome(Cells(plan), 3)
    assert json.dumps(document, indent=1) + "\n" == (RESULTS.parent / "learning.json").read_text()


def test_results_are_few_files() -> None:
    assert len([path for path in RESULTS.parent.rglob("*") if path.is_file()]) < 40
    assert list(Path(RESULTS).glob("*/*")) == []
