"""docs/tour.ipynb on a real service with a tiny base: what its text tells happens, and its output is of its code."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from memgen_client import Client
from registry.settings import Settings
from tests.api.live_api import serve
from tests.docs.beside import run_beside, wait_until_ready
from tests.workers.conftest import MEMORY, TRAINING, Workshop, settings, workshop

__all__ = ["settings", "workshop"]

DOCS = Path(__file__).resolve().parents[2] / "docs"
RUNNER, TOUR = DOCS / "run_notebook.py", DOCS / "tour.ipynb"
TRAINED = {**TRAINING, "steps": 120, "batch_size": 8}
"""Enough for the tiny base to tell two tasks apart."""


def _cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def _kinds(cell: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """What a cell shows, without its numbers."""
    return [(each["output_type"], sorted(each.get("data", ()))) for each in cell["outputs"]]


def _text(path: Path) -> str:
    """All that the cells show."""
    outputs = [each for cell in _cells(path) for each in cell["outputs"]]
    return "\n".join("".join(each.get("text") or each["data"]["text/html"]) for each in outputs)


def test_the_tour_goes_as_it_is_told(settings: Settings, workshop: Workshop, api_key: str, tmp_path: Path) -> None:
    parameters = {"training": TRAINED, "memory": MEMORY}
    done = tmp_path / "done.ipynb"
    with serve(settings.model_copy(update={"torch_threads": 1}), serve_model=True) as url:
        wait_until_ready(url)
        arguments = [str(TOUR), "--output", str(done), "--parameters", json.dumps(parameters)]
        environment = {"MEMGEN_API_URL": url, "MEMGEN_API_KEY": api_key}
        run_beside(workshop, [sys.executable, str(RUNNER), *arguments], environment, cwd=DOCS)
        with Client(url, api_key) as client:
            verdicts = [version.verdict for version in client.versions.all("sailor")]
            moves = [(move.kind, move.to_version) for move in client.aliases.all_history("sailor")]
            route = client.routes.get("sailor", 1)
            answers = sum(arm.exposures for arm in client.routes.results("sailor", 1).arms)
    shown = _text(done)
    assert verdicts == ["passed", "rejected", "passed"], shown
    assert [number for _, number in moves] == [1, 3, 1]
    assert (moves[-1][0], route.state, answers) == ("rollback", "ended", 60)
    assert "sailor@1: 'Ahoy!'" in shown
    assert "sailor@3: 'Fair winds!'" in shown
    assert shown.count("<svg") == 2, "the matrix R, and the intervals of the route"
    fresh, kept = _cells(done), _cells(TOUR)
    assert [_kinds(cell) for cell in fresh] == [_kinds(cell) for cell in kept]


def test_the_output_that_is_kept_is_of_the_code_that_is_there() -> None:
    """Where this fails: `make tour` runs the notebook and keeps what it shows."""
    checked = _run_alone(TOUR, "--check")
    assert checked.returncode == 0, checked.stderr
    cells = _cells(TOUR)
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    shown = _text(TOUR)
    [seconds] = re.findall(r"the tour took (\d+) s", shown)
    assert f"it took {int(seconds):,} s" in TOUR.read_text(encoding="utf-8"), "what its first words say"
    for line in ("sailor@1: passed", "sailor@2: rejected", "sailor@3: passed", "sailor@3: 'Fair winds!'"):
        assert line in shown
    assert "mg_" not in shown, "a key"


NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Head"]},
        {"cell_type": "code", "id": "b", "metadata": {"tags": ["parameters"]}, "source": ["word = 'no'\n", "word"]},
        {"cell_type": "code", "id": "c", "metadata": {}, "source": ["print(word)\n", "print(word * 2)"]},
        {
            "cell_type": "code",
            "id": "d",
            "metadata": {},
            "source": "class A:\n    def _repr_html_(self):\n        return '<b>x</b>'\nA()",
        },
        {"cell_type": "code", "id": "e", "metadata": {}, "source": ["None"]},
    ],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}


def _run_alone(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUNNER), str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_cells_show_what_they_print_and_what_they_end_with(tmp_path: Path) -> None:
    path = tmp_path / "small.ipynb"
    path.write_text(json.dumps(NOTEBOOK), encoding="utf-8")
    done = _run_alone(path, "--parameters", '{"word": "yes"}')
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert _run_alone(path, "--check").returncode == 0
    outputs = [cell["outputs"] for cell in _cells(path)]
    result = {"output_type": "execute_result", "metadata": {}}
    assert outputs == [
        [{**result, "execution_count": 1, "data": {"text/plain": ["'no'"]}}],
        [{"output_type": "stream", "name": "stdout", "text": ["yes\n", "yesyes\n"]}],
        [{**result, "execution_count": 3, "data": {"text/html": ["<b>x</b>"]}}],
        [],
    ]


def test_a_cell_that_fails_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "broken.ipynb"
    cell = {"cell_type": "code", "id": "wrong", "metadata": {}, "source": "1 / 0"}
    path.write_text(json.dumps({**NOTEBOOK, "cells": [cell]}), encoding="utf-8")
    before = path.read_bytes()
    assert "run it again" in _run_alone(path, "--check").stderr
    done = _run_alone(path)
    assert done.returncode == 1
    assert "<cell 1: wrong>" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert path.read_bytes() == before
