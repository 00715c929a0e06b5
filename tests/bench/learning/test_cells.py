"""What a plan's cells keep when several benchmarks begin at once, or with another base."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.learning.cells import Cells, stored_plans
from bench.learning.systems import LORA, MEMORY, SFT, BareBase, Link, Trained
from bench.learning.training import Workplace
from memgen.errors import ArtifactMismatch
from tests.bench.learning.tiny_plan import PLAN

ROOT = Path(__file__).resolve().parents[3]
_BEGIN = """
import sys
from pathlib import Path
from bench.learning.cells import Cells
from tests.bench.learning.tiny_plan import PLAN
cells = Cells(PLAN, Path(sys.argv[1]))
print(flush=True)
sys.stdin.readline()
for number in range(20):
    cells.begin("revision", f"{sys.argv[2]} {number}", {"machine": sys.argv[2]})
"""


def test_benchmarks_that_begin_at_once_lose_no_command(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _BEGIN, str(tmp_path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for name in "ab"
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    heading = Cells(PLAN, tmp_path).heading
    assert sorted(heading["commands"]) == sorted(f"{name} {number}" for name in "ab" for number in range(20))
    assert sorted(where["machine"] for where in heading["where"]) == ["a", "b"]


def test_results_of_another_base_are_refused(workplace: Callable[..., Workplace]) -> None:
    cells = workplace().cells
    before = cells.heading
    with pytest.raises(ArtifactMismatch, match="the loaded one is other"):
        cells.begin("other", "a command", {})
    assert cells.heading == before


def test_the_largest_seed_is_read_from_scores_of_this_recipe(tmp_path: Path) -> None:
    cells = Cells(PLAN, tmp_path)
    assert cells.seeds() == 0
    cells.note_scores(BareBase(), "yes-no", {"score": 0.5})
    assert cells.seeds() == 0
    cells.note_training(Trained(LORA, 7, (Link(SFT, 0),), 1e-3), {"seconds": 1.0})
    cells.note_scores(Trained(LORA, 2, (Link(SFT, 0),), 1e-3), "yes-no", {"score": 0.5})
    assert cells.seeds() == 3
    cells.note_scores(Trained(MEMORY, 4, (Link(SFT, 0),)), "yes-no", {"score": 0.5})
    assert cells.seeds() == 5
    cells.pack.put("recipe-other/scores/memory-s9-sft0/yes-no", {"score": 0.5})
    assert cells.seeds() == 5


def test_a_note_says_when_and_by_which_code(tmp_path: Path) -> None:
    cells = Cells(PLAN, tmp_path)
    assert cells.made == {"date": None, "commit": None}
    cells.note_scores(BareBase(), "yes-no", {"score": 0.5})
    assert set(cells.made) == {"date", "commit"}
    assert len(cells.made["date"]) == len("2026-01-31")


def test_results_of_the_layout_before_are_refused_with_words(tmp_path: Path) -> None:
    (tmp_path / "c0ffee").mkdir()
    (tmp_path / "c0ffee" / "plan.json").write_text("{}")
    with pytest.raises(ArtifactMismatch, match="c0ffee with a file a cell"):
        stored_plans(tmp_path)
