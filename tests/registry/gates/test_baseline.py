"""Whom a version is judged beside and on what: other branches, champions that may not serve, imported versions."""

import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.datasets.suites import freeze_suite
from registry.gates.baseline import baseline_of, not_judged, tasks_at_stake, tasks_to_judge
from registry.gates.evaluations import record_evaluation, subject_of
from registry.gates.gate import GateTerms, judge, record_gate
from registry.job_requests import TrainWeaver
from registry.models import Gate, Version, VersionState
from registry.promotion import decide, follow_up, retry_of
from registry.retention.policy import purge
from registry.tasks import get_task
from registry.transfer.admission import can_be_checked
from registry.versions.champion import champion
from registry.versions.records import get_version
from registry.versions.state import why_not_servable
from tests.registry.conftest import Rows, chats
from tests.registry.deleting import SECRET, delete, promote_version
from tests.registry.stored_versions import elsewhere, export_version, import_archive, make_stored_version

Scores = Mapping[str, float]
TERMS = GateTerms(margin=0.05)


def _score(rows: Rows, version: Version | None, scores: Scores) -> None:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter)
        for name, score in scores.items():
            suite = freeze_suite(session, get_task(session, rows.project_id, name))
            assert suite is not None
            items = [{"score": score, "answer": "x"}] * suite.items
            record_evaluation(session, subject_of(adapter, version), suite.id, score=score, items=items, seconds=0.1)


def _gate(rows: Rows, version: Version, *tasks: str) -> Gate:
    """The gate's word on a version, by the suites of the tasks, as a worker has it recorded."""
    with transaction(rows.services.sessions) as session:
        version = session.get_one(Version, version.id)
        baseline = baseline_of(session, version.adapter)
        suites: dict[uuid.UUID, uuid.UUID] = {}
        for name in tasks:
            task = get_task(session, rows.project_id, name)
            suite = freeze_suite(session, task)
            assert suite is not None
            suites[task.id] = suite.id
        gate = record_gate(
            session,
            version,
            baseline=baseline.version,
            comparisons=judge(session, version, baseline=baseline.version, terms=TERMS, suites=suites),
            terms=TERMS,
            policy=version.adapter.gate_policy,
            remarks=not_judged(session, version, baseline, suites),
        )
        session.refresh(gate)
        return gate


def _compared(gate: Gate) -> dict[str, tuple[bool, bool]]:
    """By task: whether it is new, and whether it passed."""
    return {c["task"]: (c["new"], c["passed"]) for c in gate.comparisons}


@pytest.fixture
def branches(rows: Rows) -> list[Version]:
    """v1 learned a; v2, the champion, b on top of it; v3 learned c from v1, not yet judged."""
    for task in "abc":
        rows.task(task)
    first = rows.version("a")
    second, third = rows.version("b", parent=first), rows.version("c", parent=first, passed=None)
    promote_version(rows, second)
    _score(rows, second, {"a": 1.0, "b": 1.0, "c": 0.0})
    return [first, second, third]


def test_what_only_the_champion_has_learned_must_hold(rows: Rows, branches: list[Version]) -> None:
    _, second, third = branches
    with transaction(rows.services.sessions) as session:
        both = tasks_to_judge(session, session.get_one(Version, third.id), session.get_one(Version, second.id))
        assert [task.name for task in both] == ["a", "c", "b"]
        adapter = get_adapter(session, rows.project_id, rows.adapter)
        at_stake = tasks_at_stake(session, adapter, None, get_task(session, rows.project_id, "c"))
        assert [task.name for task in at_stake] == ["c", "a", "b"], "of a version without a parent too"
    _score(rows, third, {"a": 1.0, "b": 0.0, "c": 1.0})
    gate = _gate(rows, third, "a", "b", "c")
    assert not gate.passed
    assert _compared(gate) == {"a": (False, True), "c": (True, True), "b": (False, False)}
    assert gate.reasons[2].startswith(
        "b: 100.0% to 0.0% (-100.0 points), more than the allowed drop of 5.0 points; the champion has learned it and "
        "this version has not; "
    )


def test_another_branch_passes_where_it_holds_what_the_champion_has_learned(
    rows: Rows, branches: list[Version]
) -> None:
    _score(rows, branches[2], {"a": 1.0, "b": 1.0, "c": 1.0})
    assert _gate(rows, branches[2], "a", "b", "c").passed


def test_no_replay_share_mends_what_was_never_learned(rows: Rows, branches: list[Version]) -> None:
    """A task of another branch is not replayed; one of the own line is, and asks for the retry."""
    third = branches[2]
    _score(rows, third, {"a": 1.0, "b": 0.0, "c": 1.0})
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        adapter.retry_replay_share = 0.5
        version, best = session.get_one(Version, third.id), champion(session, adapter)
        job = jobs.create_job(session, rows.project_id, TrainWeaver("c"), adapter)
        suites = {}
        for name in "abc":
            task = get_task(session, rows.project_id, name)
            suite = freeze_suite(session, task)
            assert suite is not None
            suites[task.id] = suite.id
        found = judge(session, version, baseline=best, terms=TERMS, suites=suites)
        assert [c.task for c in found if not c.passed] == ["b"]
        assert retry_of(session, adapter, version, job, found) is None


@pytest.fixture
def unservable(rows: Rows) -> Version:
    """The champion v1 learned a and b, and was withdrawn; no other version may serve."""
    secret = chats(20, word=SECRET, session_id="s1", metadata={"user": "anna-92"})
    rows.task("a", [*chats(40, word="order"), *secret])
    rows.task("b", chats(40, word="parcel"))
    first = make_stored_version(rows, "b")
    second = make_stored_version(rows, "a", parent=first)
    promote_version(rows, second)
    with transaction(rows.services.sessions) as session:
        # Nothing to fall back on.
        session.add(VersionState(version_id=first.id, archived_at=sa.func.now()))
    delete(rows, "session", "s1", "withdraw")
    return second


def test_a_champion_that_may_not_serve_is_no_baseline(rows: Rows, unservable: Version) -> None:
    """A clean version that knows as much as the withdrawn one passes: over the bare base it gains."""
    clean = rows.version("a", passed=None)
    _score(rows, None, {"a": 0.25})
    for version in (unservable, clean):
        _score(rows, version, {"a": 1.0})
    with transaction(rows.services.sessions) as session:
        found = baseline_of(session, get_adapter(session, rows.project_id, "bot"))
        assert (found.version, found.unservable and found.unservable.id) == (None, unservable.id)
    gate = _gate(rows, clean, "a")
    assert (gate.passed, gate.champion_id) == (True, None)
    assert _compared(gate) == {"a": (True, True)}
    _, why, lost = gate.reasons
    assert why == f"compared with the bare base, because the champion may not serve: {found.reason}"
    assert lost == "b: not compared; only bot@2, the unservable champion, has learned it"


def test_beside_a_champion_that_may_not_serve_the_new_task_must_still_gain(rows: Rows, unservable: Version) -> None:
    clean = rows.version("a", passed=None)
    for version in (None, clean):
        _score(rows, version, {"a": 0.25})
    assert not _gate(rows, clean, "a").passed


def test_a_champion_without_bytes_is_no_baseline(rows: Rows) -> None:
    rows.task("a")
    first = make_stored_version(rows, "a")
    promote_version(rows, first)
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        assert baseline_of(session, adapter).version_id == first.id
        purge(session, adapter, [get_version(session, adapter, 1)], actor="test", reason="")
        found = baseline_of(session, adapter)
        assert found.version is None
        assert found.unservable is not None
        assert found.reason == why_not_servable(session, found.unservable)


@pytest.mark.parametrize("policy", ["automatic", "canary", "manual"])
def test_what_mends_a_stranded_adapter_becomes_the_champion_under_every_policy(
    rows: Rows, unservable: Version, policy: str
) -> None:
    """A canary has nobody to share with, and an approval expects the champion that the gate could not compare with."""
    clean = rows.version("a", passed=None)
    _score(rows, None, {"a": 0.0})
    _score(rows, clean, {"a": 1.0})
    with transaction(rows.services.sessions) as session:
        get_adapter(session, rows.project_id, "bot", lock=True).gate_policy = policy
    gate = _gate(rows, clean, "a")
    with transaction(rows.services.sessions) as session:
        adapter, version = get_adapter(session, rows.project_id, "bot", lock=True), session.get_one(Version, clean.id)
        job = jobs.create_job(session, rows.project_id, TrainWeaver("c"), adapter)
        outcome = follow_up(session, adapter, version, session.get_one(Gate, gate.id), job)
        if policy == "manual":
            assert outcome.startswith("passed; waits")
            decide(session, adapter, version, approved=True, actor="anna", reason="")
        assert champion(session, adapter) == version


@pytest.fixture
def elsewhere_trained(rows: Rows, tmp_path: Path) -> tuple[Rows, Version]:
    """Another installation, and in it a version that learned a and then b at its origin. Neither has items there."""
    rows.task("a", chats(40))
    rows.task("b", chats(40, word="parcel"))
    version = make_stored_version(rows, "b", parent=make_stored_version(rows, "a"))
    path = export_version(rows, version, tmp_path / "one.tar")
    there = elsewhere(rows)
    return there, import_archive(there, path, tmp_path / "read").version


def _checkable(rows: Rows, version: Version) -> bool:
    with transaction(rows.services.sessions) as session:
        return can_be_checked(session, session.get_one(Version, version.id))


@pytest.mark.parametrize(("after", "passed"), [(1.0, True), (0.0, False)])
def test_an_imported_version_is_judged_on_the_suites_that_are_here(
    elsewhere_trained: tuple[Rows, Version], after: float, passed: bool
) -> None:
    there, imported = elsewhere_trained
    there.task("b", chats(40, word="parcel"))
    assert _checkable(there, imported)
    _score(there, None, {"b": 0.0})
    _score(there, imported, {"b": after})
    gate = _gate(there, imported, "b")
    assert (gate.passed, _compared(gate)) == (passed, {"b": (True, passed)})
    assert gate.reasons[1:] == ["a: not compared; this installation has no held-out items of it"]


def test_a_version_trained_here_fails_on_a_task_without_items(rows: Rows) -> None:
    rows.task("a")
    rows.task("b")
    version = rows.version("b", parent=rows.version("a"), passed=None)
    _score(rows, None, {"b": 0.0})
    _score(rows, version, {"b": 1.0})
    gate = _gate(rows, version, "b")
    assert (gate.passed, _compared(gate)) == (False, {"a": (False, False), "b": (True, True)})
    assert gate.reasons[0] == "a: no held-out items to check; upload more trajectories of this task"


@pytest.mark.parametrize(("after", "passed"), [(1.0, True), (0.0, False)])
def test_an_imported_version_must_hold_what_the_champion_has_learned(
    elsewhere_trained: tuple[Rows, Version], after: float, passed: bool
) -> None:
    """None of its own tasks has items here, so its origin's word stands for them, and for nothing else."""
    there, imported = elsewhere_trained
    there.task("c", chats(40, word="refund"))
    best = there.version("c")
    promote_version(there, best)
    assert _checkable(there, imported)
    _score(there, best, {"c": 1.0})
    _score(there, imported, {"c": after})
    gate = _gate(there, imported, "c")
    assert gate.passed == passed
    assert _compared(gate) == {"b": (True, True), "c": (False, passed)}
    assert gate.reasons[0] == (
        "not checked here: this installation has no held-out items of a, b; at its origin bot@2 was passed"
    )
