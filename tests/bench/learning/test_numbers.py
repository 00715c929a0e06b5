"""What the cells are made into: rates, matrices, intervals, claims, the page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.learning import schedule
from bench.learning.markdown import interval_over_seeds, points, share
from bench.learning.metrics import compare, item_interval, seed_interval, seed_result
from bench.learning.outcome import write_outcome
from bench.learning.page import best_of_ours, strongest_baseline
from bench.learning.report import write_lab_book, write_page
from bench.learning.schedule import Unit, pending, seconds_left
from bench.learning.systems import LORA, MEMORY, METHODS, SFT, BareBase, Link, Majority, Trained
from bench.learning.training import Workplace
from tests.bench.learning.tiny_plan import PLAN


def test_the_rate_of_lora_is_the_best_on_validation_items(workplace: Callable[..., Workplace]) -> None:
    cells = workplace().cells
    assert schedule.chosen_rate(cells) is None
    for rate, score in ((1e-3, 0.25), (2e-3, 0.5)):
        cells.note_scores(Trained(LORA, 0, (Link(SFT, 0),), rate), "validation", {"score": score})
    assert schedule.chosen_rate(cells) == 2e-3
    cells.note_scores(Trained(LORA, 0, (Link(SFT, 0),), 1e-3), "validation", {"score": 0.5})
    assert schedule.chosen_rate(cells) == 1e-3


def test_the_estimate_counts_kinds_that_were_timed(workplace: Callable[..., Workplace]) -> None:
    cells = workplace().cells
    methods = ["majority"]
    cells.note_scores(Majority(0), "yes-no", {"score": 0.5, "seconds": 2.0})
    cells.note_scores(Majority(1), "yes-no", {"score": 0.5, "seconds": 4.0})
    seconds, unknown = seconds_left(cells, methods, range(3))
    assert seconds == 3.0
    assert unknown == len(pending(cells, methods, range(3))) - 1


def test_matrix_and_comparison_by_hand(workplace: Callable[..., Workplace]) -> None:
    cells = workplace().cells
    seen = {
        BareBase(): ([0, 0, 0, 0], [0, 0, 0, 1]),
        Trained(MEMORY, 0, (Link(SFT, 0),)): ([1, 1, 1, 0], [0, 0, 1, 1]),
        Trained(MEMORY, 0, (Link(SFT, 0), Link(SFT, 1))): ([1, 0, 0, 0], [1, 1, 1, 1]),
    }
    for system, by_task in seen.items():
        for label, scores in zip(("yes-no", "left-right"), by_task, strict=True):
            cells.note_scores(system, label, {"score": sum(scores) / 4, "scores": scores})
    result = seed_result(cells, "memgen-sequential", 0)
    assert result is not None
    assert result.matrix == [[0.75, 0.5], [0.25, 1.0]]
    assert (result.acc, result.bwt, result.fwt, result.in_domain) == (0.625, -0.5, 0.25, 0.875)
    assert result.forgotten == [0.5, None]
    assert seed_result(cells, "memgen-replay", 0) is None
    found = compare(cells, "memgen-sequential", "base", [0])
    assert found.difference == 0.5
    assert (found.better, found.worse) == (4, 0)
    assert found.p_value == pytest.approx(2 / 2**4)
    assert found.interval[0] < 0.5 < found.interval[1]


def test_intervals_by_hand() -> None:
    interval = seed_interval([0.0, 2.0])
    assert interval is not None
    assert interval == (pytest.approx(1 - 12.7062, abs=1e-4), pytest.approx(1 + 12.7062, abs=1e-4))
    assert seed_interval([1.0]) is None
    ones = torch.ones(4).double().numpy()
    assert item_interval([ones, 0 * ones]) == (0.5, 0.5)


def test_the_lab_book_keeps_what_a_person_wrote(finished: tuple[Workplace, list[Unit]], tmp_path: Path) -> None:
    work, _ = finished
    page = tmp_path / "learning.md"
    document = write_outcome(work.cells, 1)
    write_lab_book(work.cells, document, page)
    text = page.read_text()
    assert "Both hold for:" in text
    assert "a command" in text
    for name in document["methods"]:
        assert name in text
    for figure in ("cost", "first_task", "matrices"):
        assert (tmp_path / "learning" / f"{figure}.svg").read_text().startswith("<?xml")
        assert f"learning/{figure}.svg" in text
    assert "memgen-isolated" in (tmp_path / "learning" / "cost.svg").read_text()
    drawn = (tmp_path / "learning" / "matrices.svg").read_bytes()
    page.write_text(text.replace("_No notes on these numbers yet._", "Mind the seeds."))
    write_lab_book(work.cells, document, page)
    assert page.read_text().count("Mind the seeds.") == 1
    assert (tmp_path / "learning" / "matrices.svg").read_bytes() == drawn


def test_claims_follow_the_numbers(workplace: Callable[..., Workplace], tmp_path: Path) -> None:
    """A method that forgets and loses must not be said to do neither."""
    cells = workplace().cells
    good, bad = {"score": 1.0, "scores": [1] * 4}, {"score": 0.0, "scores": [0] * 4}
    common = {"seconds": 1.0, "prompt_tokens": 4, "asked": 2, "invoked": 1}
    first, last = Trained(MEMORY, 0, (Link(SFT, 0),)), Trained(MEMORY, 0, (Link(SFT, 0), Link(SFT, 1)))
    known = {
        (BareBase(), "yes-no"): good,
        (BareBase(), "left-right"): bad,
        (first, "yes-no"): good,
        (first, "left-right"): bad,
    }
    known |= {(last, "yes-no"): bad, (last, "left-right"): good}
    for (system, label), cell in known.items():
        cells.note_scores(system, label, {**cell, **common})
    document = write_outcome(cells, 1)
    claim = document["claims"]["ours"]["memgen-sequential"]
    assert not claim["bwt_at_least_minus_1_point"]
    assert not claim["acc_above_every_baseline"]
    assert "lora" in document["claims"]["missing_baselines"]
    write_lab_book(cells, document, tmp_path / "learning.md")
    text = (tmp_path / "learning.md").read_text()
    assert "Both hold for: none of ours." in text
    assert "memgen-sequential: forgets, BWT -100.0" in text
    assert "not above base (does not hold)" in text
    assert document["methods"]["memgen-sequential"]["invocation_rate"] == {"yes-no": 0.5, "left-right": 0.5}


def test_nothing_is_above_baselines_that_were_not_measured(workplace: Callable[..., Workplace], tmp_path: Path) -> None:
    cells = workplace().cells
    common = {"seconds": 1.0, "prompt_tokens": 4, "asked": 0, "invoked": 0}
    first, last = Trained(MEMORY, 0, (Link(SFT, 0),)), Trained(MEMORY, 0, (Link(SFT, 0), Link(SFT, 1)))
    for system, score in ((BareBase(), 0), (first, 1), (last, 1)):
        for label in ("yes-no", "left-right"):
            cells.note_scores(system, label, {"score": score, "scores": [score] * 4, **common})
    document = write_outcome(cells, 1)
    claim = document["claims"]["ours"]["memgen-sequential"]
    assert claim["bwt_at_least_minus_1_point"]
    assert claim["against"]["base"]["difference"] == 1.0
    assert not claim["acc_above_every_baseline"]
    write_lab_book(cells, document, tmp_path / "learning.md")
    assert "Both hold for: none of ours." in (tmp_path / "learning.md").read_text()
    assert best_of_ours(document) is None
    write_page(cells, document, tmp_path / "results.md")
    assert "**No method of ours meets both claims**" in (tmp_path / "results.md").read_text()


def test_the_page_is_written_whole(finished: tuple[Workplace, list[Unit]], tmp_path: Path) -> None:
    work, _ = finished
    page = tmp_path / "results.md"
    page.write_text("<!-- by hand: begin -->\nMind the seeds.\n<!-- by hand: end -->")
    document = write_outcome(work.cells, 1)
    write_page(work.cells, document, page)
    text = page.read_text()
    assert "Mind the seeds." not in text
    for name, found in document["methods"].items():
        assert f"{name}" in text
        assert found["what"] in text
    assert (tmp_path / "results" / "acc.svg").read_text().startswith("<?xml")
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["acc.svg"]
    # The LoRAs that were trained apart are of another plan.
    assert "chosen by the same router; that is none of these methods, and was not measured." in text


def test_the_sentences_follow_the_numbers(workplace: Callable[..., Workplace], tmp_path: Path) -> None:
    """Two methods hold the claims, the one with more seeds is named first; the strongest baseline differs least."""
    cells = workplace().cells

    def method(acc: float, bwt: float, seeds: int) -> dict[str, Any]:
        return {
            "acc": acc,
            "bwt": bwt,
            "seeds": list(range(seeds)),
            "what": "...",
            "train_seconds": 1000.0,
            "acc_interval_over_items": (acc, acc),
            "acc_interval_over_seeds": None,
            "bwt_interval_over_seeds": None,
            "answer_seconds": 1.0,
            "text_nll": 3.0,
            "acc_by_seed": [acc] * seeds,
        }

    def claim(little: bool, above: bool) -> dict[str, Any]:
        against = {
            "base": {"difference": 0.9, "interval": (0.8, 1.0), "seeds": [0, 1, 2]},
            "lora-replay": {"difference": 0.2, "interval": (0.1, 0.3), "seeds": [0, 1, 2]},
        }
        return {"bwt_at_least_minus_1_point": little, "acc_above_every_baseline": above, "against": against}

    document = {
        **write_outcome(cells, 1),
        "methods": {
            "memgen-isolated": method(0.9, 0.0, 2),
            "memgen-isolated-long": method(0.95, 0.0, 1),
            "memgen-replay": method(0.95, -0.03, 2),
            "memgen-trigger": method(0.5, 0.0, 2),
            "memgen-sequential": method(0.3, -0.5, 2),
            "lora": method(0.3, -0.6, 2),
            "lora-replay": method(0.7, -0.04, 2),
            "base": method(0.0, 0.0, 2),
        },
    }
    document["claims"] = {
        "missing_baselines": [],
        "ours": {
            "memgen-isolated": claim(True, True),
            "memgen-isolated-long": claim(True, True),
            "memgen-replay": claim(False, True),
            "memgen-trigger": claim(True, False),
            "memgen-sequential": claim(False, False),
        },
    }
    for seed, score in ((0, 0.9), (1, 0.9), (2, 0.7)):
        for task, label in enumerate(PLAN.labels):
            for name, value in (("memgen-isolated", score), ("lora-replay", (0.7, 0.6, 0.7)[seed])):
                system = METHODS[name].system(1, task, seed, PLAN.lora_rates[0])
                cells.note_scores(system, label, {"score": value, "scores": [value] * 4})
    cells.note_text(BareBase(), {"nll": 2.5})
    assert best_of_ours(document) == "memgen-isolated"
    assert strongest_baseline(document, "memgen-isolated") == "lora-replay"
    write_page(cells, document, tmp_path / "results.md")
    text = (tmp_path / "results.md").read_text()
    assert "**`memgen-isolated` meets both claims:** it forgets" in text
    assert "+20.0 points [+10.0 to +30.0 over items]; by seed: +20.0, +30.0, +0.0, over seeds -21.3 to +54.6" in text
    assert "so these seeds alone do not settle it" in text
    assert "of the plan; so does `memgen-isolated-long` (95.0%)." in text
    assert "do not stand above every baseline: `memgen-trigger` (50.0%)" in text
    assert "lose more than one point of BWT: `memgen-replay` (-3.0) and `memgen-sequential` (-50.0)" in text
    assert "One memory trained on task after task has BWT -50.0, one LoRA of the base -60.0" in text
    assert "costs +0.50 nats a token with `memgen-isolated`" in text


def test_an_interval_over_seeds_stays_on_the_scale_and_needs_three_seeds() -> None:
    assert interval_over_seeds((0.095, 1.318), 2, share, (0, 1)) == "-"
    assert interval_over_seeds(None, 1, share, (0, 1)) == "-"
    assert interval_over_seeds((0.6, 1.318), 3, share, (0, 1)) == "60.0% to 100.0%"
    assert interval_over_seeds((-1.2, -0.5), 3, points, (-1, 1)) == "-100.0 to -50.0"


def test_what_a_method_is_names_no_other_method() -> None:
    for name, method in METHODS.items():
        assert not [other for other in METHODS if "-" in other and other in method.what], name
