"""When a cluster has a role: failures that rise beyond what random drops do, and nothing else."""

import random
from itertools import product

import numpy as np
import pytest

from memgen.analysis.effects import NO_ROLE, ROLES, Label, confidence, judge_drop, share_interval
from memgen.analysis.failures import FailureType

RIGHT: Label = None


def random_labels(rng: random.Random, items: int, wrong: float) -> list[Label]:
    return [rng.choice(list(FailureType)) if rng.random() < wrong else RIGHT for _ in range(items)]


@pytest.mark.parametrize(
    ("role", "failure"), [(role, failure) for role, failures in ROLES.items() for failure in sorted(failures)]
)
def test_a_planted_effect_is_found(role: str, failure: FailureType) -> None:
    rng = random.Random(1)
    untouched = random_labels(rng, 100, 0.2)
    draws = [[label if rng.random() < 0.95 else FailureType.OTHER for label in untouched] for _ in range(5)]
    dropped = [failure if n < 40 else label for n, label in enumerate(untouched)]
    verdict = judge_drop(untouched, dropped, draws, clusters=4)
    assert verdict.role == role
    [move] = [move for move in verdict.moves if move.failure == failure]
    assert move.rises
    assert move.dropped > move.random_interval[1] >= move.random
    assert role in verdict.reason


def test_noise_has_no_role() -> None:
    """In 300 suites whose failures are drawn alike, whatever was dropped, hardly one cluster gets a role: with a
    confidence of 95% over all comparisons at most one in twenty may."""
    rng = random.Random(2)
    roles = []
    for _ in range(300):
        untouched, dropped, *draws = (random_labels(rng, 60, 0.5) for _ in range(7))
        roles.append(judge_drop(untouched, dropped, draws, clusters=1).role)
    assert sum(role != NO_ROLE for role in roles) <= 15


def test_an_effect_that_random_drops_have_too_is_no_role() -> None:
    """That something breaks when latents go is no property of the cluster."""
    untouched = [RIGHT] * 60
    broken: list[Label] = [FailureType.PLANNING] * 50 + [RIGHT] * 10
    verdict = judge_drop(untouched, broken, [broken] * 5, clusters=3)
    assert verdict.role == NO_ROLE
    planning = verdict.moves[0]
    assert (planning.untouched, planning.dropped, planning.random, planning.rises) == (0.0, 50 / 60, 50 / 60, False)


def test_several_groups_that_rise_are_no_clear_role() -> None:
    untouched = [RIGHT] * 60
    dropped: list[Label] = [FailureType.PLANNING] * 30 + [FailureType.DEMAND] * 30
    verdict = judge_drop(untouched, dropped, [untouched] * 5, clusters=3)
    assert verdict.role == NO_ROLE
    assert verdict.reason.startswith("several groups of failures rise")


def test_a_group_that_may_rise_too_leaves_no_clear_role() -> None:
    """Five of sixty rise in one group and four in another, which is short of the proof, and no proof of rest."""
    untouched = [RIGHT] * 60
    dropped: list[Label] = [FailureType.PLANNING] * 5 + [FailureType.DEMAND] * 4 + [RIGHT] * 51
    verdict = judge_drop(untouched, dropped, [untouched] * 5, clusters=4)
    assert [move.failure for move in verdict.moves if move.rises] == ["planning", "planning memory"]
    assert verdict.role == NO_ROLE
    assert "working memory: 6.7% of the items fail so" in verdict.reason.partition("others may rise too")[2]
    alone: list[Label] = [FailureType.PLANNING] * 5 + [RIGHT] * 55
    assert judge_drop(untouched, alone, [untouched] * 5, clusters=4).role == "planning memory"


@pytest.mark.parametrize("kind", ["as often", "by item", "nearly all wrong", "one kind"])
def test_a_role_is_named_by_chance_once_in_twenty_suites_at_most(kind: str) -> None:
    """Four clusters of 30 items whose failures do not depend on what was dropped, whatever else they depend on."""
    rng, suites, named = np.random.default_rng(3), 60, 0
    kinds = list(FailureType)[:1] if kind == "one kind" else list(FailureType)
    for _ in range(suites):
        chances = {"by item": rng.beta(0.3, 0.3, 30), "nearly all wrong": np.full(30, 0.95)}.get(kind, np.full(30, 0.4))

        def answers(chances: np.ndarray = chances) -> list[Label]:
            fails, which = rng.random(30) < chances, rng.integers(len(kinds), size=30)
            return [kinds[k] if fail else RIGHT for fail, k in zip(fails, which, strict=True)]

        roles = [judge_drop(answers(), answers(), [answers() for _ in range(5)], clusters=4).role for _ in range(4)]
        named += any(role != NO_ROLE for role in roles)
    assert named <= 0.05 * suites


def test_intervals_hold_what_they_say() -> None:
    """Of suites without an effect at most one in twenty has a share outside of its plain interval of 95%."""
    rng, outside = np.random.default_rng(4), 0
    for _ in range(300):
        chances = rng.beta(0.5, 0.5, 40)
        came = rng.random((6, 40)) < chances
        low, high = share_interval(came.mean(axis=0), 0.05)
        outside += not low - 1e-9 <= came[0].mean() <= high + 1e-9
    assert outside / 300 <= 0.05


def test_a_failure_without_a_group_gives_no_role() -> None:
    untouched = [RIGHT] * 60
    verdict = judge_drop(untouched, [FailureType.OTHER] * 60, [untouched] * 5, clusters=3)
    assert verdict.role == NO_ROLE
    assert [move.failure for move in verdict.moves if move.rises] == ["other"]


def test_a_few_items_prove_nothing() -> None:
    untouched = [RIGHT] * 3
    verdict = judge_drop(untouched, [FailureType.PLANNING] * 3, [untouched] * 5, clusters=4)
    assert verdict.role == NO_ROLE


def test_more_clusters_ask_for_more_evidence() -> None:
    assert confidence(1) == pytest.approx(1 - 0.05 / 11)
    assert confidence(8) == pytest.approx(1 - 0.05 / 88)
    untouched = [RIGHT] * 40
    dropped: list[Label] = [FailureType.PLANNING] * 4 + [RIGHT] * 36
    alone, among = (judge_drop(untouched, dropped, [untouched] * 5, clusters=n) for n in (1, 500))
    assert (alone.role, among.role) == ("planning memory", NO_ROLE)


def test_intervals_of_shares_are_exact() -> None:
    """Against every case there is, for six items."""
    chances = np.array([0.1, 0.5, 0.5, 0.9, 0.3, 0.0])
    found = np.zeros(7)
    for case in product((0, 1), repeat=6):
        found[sum(case)] += np.prod([c if one else 1 - c for c, one in zip(chances, case, strict=True)])
    for level in (0.5, 0.2, 0.05, 0.01):
        low, high = (round(6 * end) for end in share_interval(chances, level))
        assert found[:low].sum() <= level / 2
        assert found[: low + 1].sum() > level / 2
        assert found[high + 1 :].sum() <= level / 2
        assert found[high:].sum() > level / 2
    assert share_interval(np.array([0.5, 0.5]), 0.4) == (0.0, 1.0)
    assert share_interval(np.zeros(4), 0.05) == (0.0, 0.0)
    assert share_interval(np.ones(4), 0.05) == (1.0, 1.0)
