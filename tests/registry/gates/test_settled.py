"""A day of wrong rewards at the gate: its items may not outvote those that the champion was judged by."""

from collections.abc import Callable

import pytest

from registry.adapters import change_adapter, get_adapter
from registry.database import transaction
from registry.datasets.suites import freeze_suite, suite_trajectories
from registry.gates.baseline import baseline_of
from registry.gates.evaluations import record_evaluation, subject_of
from registry.gates.gate import GateTerms, forgot, judge, record_gate
from registry.models import Gate, Trajectory, Version
from registry.tasks import get_task
from registry.trajectories.imports import import_batch, read_item
from tests.registry.conftest import TOKENS, Rows, chats
from tests.registry.deleting import promote_version

TERMS = GateTerms(margin=0.05)
Score = Callable[[str], float]
"""Score of the item whose question is given."""


def _gate(rows: Rows, version: Version, score: Score, *, baseline: Score = lambda _: 0.5) -> Gate:
    """Evaluate version and baseline on the suite of now, and record what the gate says."""
    with transaction(rows.services.sessions) as session:
        version = session.get_one(Version, version.id)
        task = get_task(session, rows.project_id, "a")
        suite = freeze_suite(session, task)
        assert suite is not None
        best = baseline_of(session, version.adapter).version
        for subject, scored in ((best, baseline), (version, score)):
            scores = [scored(row.messages[0]["content"]) for row in suite_trajectories(session, suite.id)]
            items = [{"score": value, "answer": ""} for value in scores]
            mean = sum(scores) / len(scores)
            subject_ = subject_of(version.adapter, subject)
            record_evaluation(session, subject_, suite.id, score=mean, items=items, seconds=0.1)
        found = judge(session, version, baseline=best, terms=TERMS, suites={task.id: suite.id})
        assert not forgot([c for c in found if c.settled]), "no larger replay share mends it"
        gate = record_gate(session, version, baseline=best, comparisons=found, terms=TERMS)
        session.refresh(gate)
        return gate


def _send(rows: Rows, count: int, word: str) -> None:
    with transaction(rows.services.sessions) as session:
        sent = [read_item(n, item) for n, item in enumerate(chats(count, word=word, reward=1.0))]
        import_batch(session, rows.project_id, sent, default_task="a", tokens=TOKENS)


@pytest.fixture
def champion(rows: Rows) -> Version:
    """A champion that was judged by the items about orders, before 400 answers about parcels arrived."""
    rows.task("a", chats(80, word="order"))
    first = rows.version("a", passed=None)
    assert _gate(rows, first, lambda _: 1.0).passed
    promote_version(rows, first)
    _send(rows, 400, "parcel")
    return first


def _learned_the_day(question: str) -> float:
    return 1.0 if "parcel" in question else 0.0


def _settle(rows: Rows) -> None:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter, lock=True)
        change_adapter(session, adapter, {"gate_settled": True}, actor="test", reason="")


def test_a_day_of_wrong_rewards_outvotes_nothing_that_was_settled(rows: Rows, champion: Version) -> None:
    _settle(rows)
    gate = _gate(rows, rows.version("a", passed=None, parent=champion), _learned_the_day)
    assert [(c["new"], c["settled"], c["passed"]) for c in gate.comparisons] == [
        (True, False, True),
        (False, True, False),
    ]
    assert not gate.passed
    assert gate.reasons[1].startswith("on what the champion was judged by, a: 50.0% to 0.0%")
    with transaction(rows.services.sessions) as session:
        held_out = session.query(Trajectory).filter_by(held_out=True).all()
        orders = [row for row in held_out if "order" in row.messages[0]["content"]]
    assert gate.comparisons[1]["evidence"]["items"] == len(orders) > 5


def test_without_the_setting_the_new_items_decide(rows: Rows, champion: Version) -> None:
    assert _gate(rows, rows.version("a", passed=None, parent=champion), _learned_the_day).passed


def test_what_is_new_can_be_learned_and_what_was_settled_kept(rows: Rows, champion: Version) -> None:
    _settle(rows)
    gate = _gate(rows, rows.version("a", passed=None, parent=champion), lambda q: 1.0 if "parcel" in q else 0.5)
    assert gate.passed
    assert [c["settled"] for c in gate.comparisons] == [False, True]


def _settings(rows: Rows, **changes: bool) -> None:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter, lock=True)
        change_adapter(session, adapter, changes, actor="test", reason="")


def test_a_champion_at_its_ceiling_refuses_not_all_that_follow(rows: Rows, champion: Version) -> None:
    def judge_equal() -> Gate:
        version = rows.version("a", passed=None, parent=champion)
        return _gate(rows, version, lambda _: 1.0, baseline=lambda _: 1.0)

    assert judge_equal().reasons[0].startswith("a: 100.0% to 100.0% (+0.0 points), no gain on the new task")
    _settings(rows, gate_gain=False)
    assert judge_equal().passed
    worse = _gate(rows, rows.version("a", passed=None, parent=champion), lambda _: 0.5, baseline=lambda _: 1.0)
    assert not worse.passed


def test_the_first_version_of_a_task_must_gain_all_the_same(rows: Rows) -> None:
    rows.task("a")
    _settings(rows, gate_gain=False)
    assert not _gate(rows, rows.version("a", passed=None), lambda _: 0.5).passed


def test_nothing_is_compared_twice_while_nothing_new_came(rows: Rows) -> None:
    rows.task("a")
    first = rows.version("a", passed=None)
    _settle(rows)
    assert [c["settled"] for c in _gate(rows, first, lambda _: 1.0).comparisons] == [False], "there is no champion"
    promote_version(rows, first)
    second = _gate(rows, rows.version("a", passed=None, parent=first), lambda _: 1.0)
    assert [c["settled"] for c in second.comparisons] == [False]


def test_a_champion_whose_items_are_all_gone_lets_nothing_pass(rows: Rows, champion: Version) -> None:
    """Rewards that were changed afterwards take items out of the suite; a gate that sees none must not say yes."""
    _settle(rows)
    with transaction(rows.services.sessions) as session:
        for row in session.query(Trajectory).filter_by(held_out=True):
            if "order" in row.messages[0]["content"]:
                row.reward, row.reward_source = 0.0, "environment"
    gate = _gate(rows, rows.version("a", passed=None, parent=champion), lambda _: 1.0)
    assert not gate.passed
    assert gate.reasons[1] == "a: nothing is left of the items that the champion was judged by"
