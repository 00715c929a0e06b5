"""The real run of docs/analysis.md is written from what was found, and nothing else."""

import re

import pytest

from bench.analysis import HEADING, PAGE, command, section, with_run
from tests.registry.analyzed import found

NOW = "2026-01-02T03:04:05Z"


def test_the_section_is_written_once_and_anew() -> None:
    page = PAGE.read_text(encoding="utf-8").partition(HEADING)[0]
    once = with_run(page, found(analyzed_at=NOW))
    assert once.startswith(page.rstrip())
    assert with_run(once, found(analyzed_at=NOW)) == once
    assert "31 latents" in with_run(once, found(analyzed_at=NOW, latents=31))
    for text in ("2026-01-02", "30 latents of 10 answers", "planning memory", "`' <plan>'` 0.50", "10.0% to 40.0%"):
        assert text in once
    assert once.count(HEADING) == 1


def test_what_was_not_wanted_is_left_out() -> None:
    none = {"verdict": "no clusters", "reason": "too few", "choices": [], "clusters": [], "explained_by": {}}
    text = section(found(analyzed_at=NOW, clusters=none, drift=None, interventions=None, ablations=None))
    assert "No clusters: too few." in text
    assert "Against" not in text
    assert "--no-interventions --no-ablations" in text


@pytest.mark.parametrize("drift", [True, False])
def test_the_command_is_one_that_makes_it(drift: bool) -> None:
    made = command(found() if drift else found(drift=None))
    assert re.fullmatch(r"memgen analyze bot@1 --items 10 --clusters 2-4 --seed 0( --against 2)?", made)
    assert ("--against" in made) == drift
