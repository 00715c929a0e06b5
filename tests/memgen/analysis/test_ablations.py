"""Ablations on a memory with random weights, whose own answers are the right ones: whatever matters shows."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from memgen.analysis.ablations import Ablation, AblationSettings, _random_trigger, _rates, ablate
from memgen.analysis.items import ReadAnalysisItem, read_analysis_items
from memgen.analysis.runs import Outcome
from memgen.artifacts.artifact import load_artifact
from memgen.config import MemoryConfig
from memgen.errors import ConfigError
from memgen.evaluation.accuracy import ReadItem
from memgen.evaluation.grading import ItemScore
from memgen.experience.pool import PastTrajectory
from memgen.generation.requests import Decision, GenerationRequest
from memgen.memory.host import AdapterHost
from tests.memgen.analysis.samples import RUN, echoing, item
from tests.memgen.conftest import randomise

COUNT = 8


def answered_right_by(host: AdapterHost, memory: str | None, count: int = COUNT) -> list[ReadAnalysisItem]:
    return read_analysis_items(host, echoing(host, memory, count))


@pytest.fixture
def cued(host: AdapterHost) -> str:
    """A memory whose weaver reads of a past trajectory."""
    config = MemoryConfig(latents=4, inference_latents=3, max_insertions=1, rank=4, alpha=8, cue_tokens=200)
    memory = host.create("cued", config)
    randomise(memory, 3)
    assert memory.recall is not None
    past = PastTrajectory("past", "words", "say yes, it is, so, and so. 3", "no, it is not", 1.0)
    memory.recall = memory.recall.with_entries([past])
    return "cued"


def by_name(rows: tuple[Ablation, ...]) -> dict[str, Ablation]:
    return {row.name: row for row in rows}


@pytest.mark.parametrize("form", ["cache", "embedding"])
def test_every_part_is_taken_away_in_turn(host: AdapterHost, random_artifact: Callable[..., Path], form: str) -> None:
    load_artifact(host, "m", random_artifact(form=form, trigger="lora", max_insertions=4))
    report = ablate(host, ["m"] * COUNT, answered_right_by(host, "m"), AblationSettings(random_draws=2), run=RUN)
    rows = by_name(report.rows)
    assert [*rows] == [
        "as trained",
        "latents 2",
        "latents 1",
        "budget 2",
        "budget 1",
        "prompt only",
        "interleaved only",
        "trigger always",
        "trigger never",
        "trigger random",
    ]
    assert report.skipped == {"without cues": "the version's weaver reads none"}
    trained = rows["as trained"]
    assert (trained.accuracy, trained.difference, report.items) == (1.0, 0.0, COUNT)
    assert rows["trigger random"].runs == 2
    assert rows["trigger never"].latents_per_answer == rows["trigger never"].insertions_per_answer == 0
    assert rows["prompt only"].insertions_per_answer <= 1
    assert rows["trigger always"].insertions_per_answer > 1
    for row in report.rows:
        assert row.difference == pytest.approx(row.accuracy - 1)
        assert row.interval[0] <= row.accuracy <= row.interval[1]
        assert row.difference_interval[0] < row.difference_interval[1]
        assert row.tasks == {"words": row.accuracy}
    assert any(row.accuracy < 1 for row in report.rows)
    assert rows["trigger never"].accuracy < 1


def test_what_matters_shows_and_what_does_not_does_not(host: AdapterHost, random_artifact: Callable[..., Path]) -> None:
    """The right answers are those of the bare base: to weave is what makes them wrong."""
    load_artifact(host, "m", random_artifact(max_insertions=2))
    rows = by_name(ablate(host, ["m"] * COUNT, answered_right_by(host, None), run=RUN).rows)
    assert rows["trigger never"].accuracy == 1.0
    assert rows["as trained"].accuracy < 0.5
    low, high = rows["trigger never"].difference_interval
    assert 0 < low < high


def test_a_random_trigger_weaves_as_often(host: AdapterHost, random_artifact: Callable[..., Path]) -> None:
    load_artifact(host, "m", random_artifact(trigger="head", max_insertions=5))
    settings = AblationSettings(latents=(4,), budgets=(5,), random_draws=6)
    rows = by_name(ablate(host, ["m"] * COUNT, answered_right_by(host, "m"), settings, run=RUN).rows)
    trained, chance = rows["as trained"], rows["trigger random"]
    assert trained.insertions_per_answer > 0
    assert chance.insertions_per_answer == pytest.approx(trained.insertions_per_answer, rel=0.5)
    assert chance.accuracy < 1.0


def test_a_random_trigger_has_the_rates_that_it_is_given() -> None:
    """At the prompt's end its own, whatever it is behind it."""
    changed = [
        _random_trigger((0.25, 0.6), (0, n))(place, GenerationRequest((1,))) for n in range(5) for place in range(200)
    ]
    decide = [request.intervention.decide for request in changed]
    first, later = (np.mean([one(point) for one in decide if one for _ in range(4)]) for point in (0, 3))
    assert (first, later) == (pytest.approx(0.25, abs=0.03), pytest.approx(0.6, abs=0.03))


def test_rates_are_those_of_decision_points() -> None:
    woven, skipped = Decision(1, 0.9, True, 4), Decision(9, 0.1, False, 0)
    answers = [[woven, skipped, woven], [skipped, skipped], [woven], []]
    outcomes = [
        Outcome(ReadAnalysisItem(item(0), ReadItem(item(0).held_out)), ItemScore(1, ""), None, tuple(d))
        for d in answers
    ]
    assert _rates(outcomes) == (2 / 3, 1 / 3)
    assert _rates([]) == (0.0, 0.0)


def test_what_would_change_nothing_is_said(host: AdapterHost, random_artifact: Callable[..., Path]) -> None:
    load_artifact(host, "m", random_artifact())  # weaves always, at the prompt's end and five times more
    load_artifact(host, "once", random_artifact(max_insertions=0))
    items = answered_right_by(host, "m", 2)
    settings = AblationSettings(latents=(9, 3), budgets=(7, 1))
    report = ablate(host, ["m"] * 2, items, settings, run=RUN)
    assert report.skipped == {
        "latents 9": "the version weaves 4 at most",
        "budget 7": "the version's budget is 5",
        "trigger always": "the version's trigger is always",
        "trigger random": "the version's trigger leaves nothing to chance: it weaves always or never",
        "without cues": "the version's weaver reads none",
    }
    assert {"latents 3", "budget 1"} < by_name(report.rows).keys()
    once = ablate(host, ["once"] * 2, items, AblationSettings(latents=(3,)), run=RUN)
    assert once.skipped["prompt only"] == "the version's budget is 0"
    assert "interleaved only" in once.skipped


def test_the_bare_base_has_nothing_to_take_away(host: AdapterHost, random_artifact: Callable[..., Path]) -> None:
    load_artifact(host, "silent", random_artifact(trigger="never"))
    for memory in (None, "silent"):
        report = ablate(host, [memory] * COUNT, answered_right_by(host, memory), run=RUN)
        assert [row.name for row in report.rows] == ["as trained"]
        assert set(report.skipped.values()) == {"the version never weaves"}


def test_cues_are_left_out(host: AdapterHost, cued: str) -> None:
    report = ablate(host, [cued] * COUNT, answered_right_by(host, cued), run=RUN)
    rows = by_name(report.rows)
    assert rows["as trained"].accuracy == 1.0
    assert rows["without cues"].accuracy < 1.0
    assert rows["without cues"].latents_per_answer > 0


def test_equal_runs_are_equal(host: AdapterHost, random_artifact: Callable[..., Path]) -> None:
    load_artifact(host, "m", random_artifact(trigger="head", max_insertions=2))
    items, settings = answered_right_by(host, "m", 4), AblationSettings(latents=(1,), budgets=(2,), random_draws=2)
    first, second = (ablate(host, ["m"] * 4, items, settings, run=RUN) for _ in range(2))
    assert first == second
    assert json.loads(json.dumps(asdict(first), allow_nan=False))["items"] == 4


@pytest.mark.parametrize("wrong", [{"latents": [0]}, {"budgets": [-1]}, {"random_draws": 0}])
def test_settings_have_ranges(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        AblationSettings.from_mapping(wrong)
