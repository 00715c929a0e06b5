"""The gate's judgement of one task under each rule, and what the whole verdict needs."""

import pytest
import sqlalchemy as sa

from registry.database import transaction
from registry.gates.audit import compared_items
from registry.gates.evaluations import record_evaluation, subject_of
from registry.gates.gate import Comparison, GateTerms, compare, forgot, judge, record_gate
from registry.models import Suite, Version
from tests.registry.conftest import Rows, refused_as_immutable

TERMS = GateTerms(margin=0.05)


def _right(count: int, of: int = 100) -> list[float]:
    return [1.0] * count + [0.0] * (of - count)


@pytest.mark.parametrize(
    ("new", "champion", "candidate", "passed", "reason"),
    [
        (False, 90, 86, True, "a: 90.0% to 86.0% (-4.0 points), within the allowed drop of 5.0 points; "),
        (False, 90, 85, True, "a: 90.0% to 85.0% (-5.0 points), within the allowed drop of 5.0 points; "),
        (False, 90, 84, False, "a: 90.0% to 84.0% (-6.0 points), more than the allowed drop of 5.0 points; "),
        (False, 90, 95, True, "a: 90.0% to 95.0% (+5.0 points), within the allowed drop of 5.0 points; "),
        (True, 10, 11, True, "a: 10.0% to 11.0% (+1.0 points), a gain on the new task; "),
        (True, 10, 10, False, "a: 10.0% to 10.0% (+0.0 points), no gain on the new task; "),
    ],
)
def test_one_task_by_its_point_estimate(new: bool, champion: int, candidate: int, passed: bool, reason: str) -> None:
    judged = compare("a", new=new, baseline=_right(champion), candidate=_right(candidate), terms=TERMS)
    assert judged.passed is passed
    assert judged.reason.startswith(reason)


def test_reasons_carry_the_evidence() -> None:
    judged = compare("a", new=False, baseline=_right(90), candidate=_right(84), terms=TERMS)
    assert judged.reason.endswith(
        "; 95% interval -12.1 to -0.8 points, 0 better and 6 worse of 100 items, p = 0.0312 (exact McNemar)"
    )
    graded = compare("a", new=True, baseline=[0.5, 0.25] * 9, candidate=[0.6, 0.2] * 9, terms=TERMS)
    assert "9 better and 9 worse of 18 items" in graded.reason
    assert graded.reason.endswith("(paired permutation)")


@pytest.mark.parametrize("missing", [None, []])
def test_what_was_not_measured_fails(missing: list[float] | None) -> None:
    for sides in ((missing, [1.0]), ([1.0], missing)):
        judged = compare("a", new=False, baseline=sides[0], candidate=sides[1], terms=TERMS)
        assert (judged.passed, judged.evidence, judged.change) == (False, None, None)
        assert judged.reason == "a: no held-out items to check; upload more trajectories of this task"


def test_what_can_not_be_judged_is_said() -> None:
    judged = compare("a", new=True, baseline=[0.0, 1.0], candidate=[1.0, 1.0], terms=TERMS, left_out=3)
    assert judged.passed
    assert judged.reason.endswith("; 3 more are left out")
    nothing = compare("a", new=True, baseline=[], candidate=[], terms=TERMS, left_out=3)
    assert not nothing.passed
    assert nothing.reason == "a: none of its 3 held-out items can be judged; the evaluations' items say why"


def test_an_item_left_out_for_one_is_left_out_for_both(rows: Rows) -> None:
    """For whom it has no room, and whatever the other scored on it."""
    rows.task("a")
    version = rows.version("a", passed=None)
    scores = {None: [0.0, 0.0, 1.0], version: [1.0, 0.0, 0.0]}
    with transaction(rows.services.sessions) as session:
        version = session.get_one(Version, version.id)
        suite = Suite(task_id=version.dataset.task_id, number=1, content_hash="0" * 64, items=3)
        session.add(suite)
        session.flush()
        for subject, (subject_version, found) in enumerate(scores.items()):
            items = [{"score": score, "answer": "\0\ud800a"} for score in found]
            items[subject + 1] |= {"left_out": True, "note": "too long\0"}
            who = subject_of(version.adapter, subject_version)
            record_evaluation(session, who, suite.id, score=0.5, items=items, seconds=0.1)
        suites = {version.dataset.task_id: suite.id}
        [comparison] = judge(session, version, baseline=None, terms=TERMS, suites=suites)
        assert (comparison.champion, comparison.candidate, comparison.passed) == (0.0, 1.0, True)
        assert comparison.reason.endswith("; 2 more are left out")
        record_gate(session, version, baseline=None, comparisons=[comparison], terms=TERMS)
        pairs = compared_items(session, version, "a")
    assert [pair.flipped for pair in pairs] == ["better", None, None]
    assert pairs[1].champion == {"score": 0.0, "answer": "\ufffd\ufffda", "left_out": True, "note": "too long\ufffd"}


@pytest.mark.parametrize(
    ("rule", "champion", "candidate", "passed"),
    [
        # 2 of 20 lost: more than the margin, but p = 0.5, and the interval reaches far below it.
        ("point", _right(20, 20), _right(18, 20), False),
        ("significant_drop", _right(20, 20), _right(18, 20), True),
        ("non_inferior", _right(20, 20), _right(18, 20), False),
        # 8 of 20 lost: p = 0.0078.
        ("significant_drop", _right(20, 20), _right(12, 20), False),
        # 4 of 100 lost: within the margin, yet a drop of 9 points can't be ruled out.
        ("point", _right(90), _right(86), True),
        ("significant_drop", _right(90), _right(86), True),
        ("non_inferior", _right(90), _right(86), False),
        # None of 20 flipped: nothing is shown by so few.
        ("non_inferior", _right(20, 20), _right(20, 20), False),
        ("non_inferior", _right(200, 200), _right(200, 200), True),
    ],
)
def test_rules(rule: str, champion: list[float], candidate: list[float], passed: bool) -> None:
    terms = GateTerms(margin=0.05, rule=rule)
    judged = compare("a", new=False, baseline=champion, candidate=candidate, terms=terms)
    assert judged.passed is passed, judged.reason


def test_the_new_task_must_gain_under_every_rule() -> None:
    for rule in ("point", "significant_drop", "non_inferior"):
        terms = GateTerms(margin=0.05, rule=rule)
        assert compare("a", new=True, baseline=_right(10), candidate=_right(11), terms=terms).passed
        assert not compare("a", new=True, baseline=_right(10), candidate=_right(10), terms=terms).passed


def test_a_verdict_needs_every_task_and_a_training_that_learned(rows: Rows) -> None:
    rows.task("a")
    good = compare("a", new=True, baseline=_right(10), candidate=_right(90), terms=TERMS)
    bad = compare("b", new=False, baseline=_right(90), candidate=_right(10), terms=TERMS)

    def verdict(comparisons: list[Comparison], flags: tuple[str, ...] = ()) -> bool:
        version = rows.version("a", passed=None)
        with transaction(rows.services.sessions) as session:
            version = session.get_one(Version, version.id)
            gate = record_gate(
                session, version, baseline=None, comparisons=comparisons, terms=TERMS, policy="manual", flags=flags
            )
            assert (gate.rule, gate.level, gate.policy) == ("point", 0.05, "manual")
            return gate.passed

    assert verdict([good])
    assert not verdict([good, bad])
    assert not verdict([good], ("no weight changed",))
    assert not verdict([])
    assert (forgot([good]), forgot([good, bad])) == (False, True)
    assert not forgot([compare("b", new=False, baseline=None, candidate=None, terms=TERMS)])
    with (
        refused_as_immutable("gates"),
        transaction(rows.services.sessions) as session,
    ):
        session.execute(sa.text("update gates set passed = true"))
