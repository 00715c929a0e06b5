"""reasoning-gym's scorers with answers that are right, odd and hostile."""

import builtins
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memgen.errors import ConfigError
from memgen.tasks.gym_scorer import LIMITS, GymScorer, dataset_names
from memgen.tasks.sandbox import Limits

SANDBOXED = [
    "advanced_geometry",
    "binary_matrix",
    "bitwise_arithmetic",
    "codeio",
    "countdown",
    "decimal_arithmetic",
    "intermediate_integration",
    "n_queens",
    "number_sorting",
    "polynomial_equations",
    "polynomial_multiplication",
    "propositional_logic",
    "puzzle24",
    "rubiks_cube",
    "simple_integration",
    "spiral_matrix",
    "string_insertion",
]
IN_PROCESS = sorted(set(dataset_names()) - {*SANDBOXED, "arc_agi"})
"""Without one whose library leaves its data files open."""
ODD = ["", "0", "1e999", "I think 2 x 3", "{}", "[1, 2", "9**9", "x" * 2000, "__import__('os').getcwd()"]


def _entry(name: str) -> dict[str, Any]:
    return dict(GymScorer(name).entries(size=1, seed=7)[0])


@pytest.mark.parametrize("name", ["string_insertion", "spiral_matrix", "countdown", "simple_integration"])
def test_an_answer_is_not_run_here(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    scorer = GymScorer(name, limits=replace(LIMITS, seconds=8.0))  # the last payload runs as long as it may
    for payload in (f"__import__('pathlib').Path({str(marker)!r}).touch()", "9**9**8" if name == "countdown" else ""):
        assert 0.0 <= scorer(payload or "[]", _entry(name)) < 1.0
    assert not marker.exists()


@pytest.mark.parametrize("name", ["number_sorting", "polynomial_multiplication"])
def test_an_entry_is_not_run_here(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    payload = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    assert GymScorer(name)("1", {**_entry(name), "answer": payload}) == 0.0
    assert not marker.exists()


@pytest.mark.parametrize("name", SANDBOXED)
def test_the_sandbox_gives_the_scorers_own_score(name: str) -> None:
    scorer, entry = GymScorer(name), _entry(name)
    assert scorer.sandboxed
    right = str(entry["answer"])
    score = scorer(right, entry)  # once: the sandbox imports all of reasoning-gym anew
    assert score == scorer._made.score_answer(right, entry)
    assert score == 1.0 or entry["answer"] is None


def test_the_others_score_anything_and_run_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scorers = [GymScorer(name) for name in IN_PROCESS]
    assert not any(scorer.sandboxed for scorer in scorers)
    entries = [scorer.entries(size=1, seed=7)[0] for scorer in scorers]

    def run(*_: object, **__: object) -> None:
        raise SystemError("an answer was run")

    for name in ("eval", "exec", "compile"):
        monkeypatch.setattr(builtins, name, run)
    for scorer, entry in zip(scorers, entries, strict=True):
        for answer in ODD:
            assert 0.0 <= scorer(answer, entry) <= 1.0, (scorer.dataset, answer)


def test_a_scorer_that_takes_too_long_scores_nothing() -> None:
    scorer = GymScorer("string_insertion", limits=Limits(seconds=4.0, memory_bytes=2 << 30))
    assert scorer("__import__('time').sleep(60)", _entry("string_insertion")) == 0.0


def test_what_can_not_be_played_is_refused() -> None:
    assert "composite" not in dataset_names()
    assert "spell_backward" in dataset_names()
    with pytest.raises(ConfigError, match="'composite' is made of other datasets"):
        GymScorer("composite")
    with pytest.raises(ConfigError, match="'game_of_life_halting' has a scorer that compares the truth of texts"):
        GymScorer("game_of_life_halting")
