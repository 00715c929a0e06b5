"""What follows from a gate: promotion, a person's word, a canary, one retry; and what concurrent callers see."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import GateNotPassed, NothingToDecide, StaleAlias
from registry.gates.gate import GateTerms, compare
from registry.gates.verdict import gate_of, verdict
from registry.job_requests import CheckImport, JobRequest, TrainWeaver
from registry.models import GateDecision, Job, Version
from registry.promotion import decide, follow_up, retry_of
from registry.serving.aliases import history, promote
from registry.serving.routes import live_route, start_shadow, weights_of
from registry.versions.champion import champion
from registry.versions.records import get_version
from tests.registry.conftest import Rows


def _set(rows: Rows, **settings: Any) -> None:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        for name, value in settings.items():
            setattr(adapter, name, value)


def _follow(rows: Rows, version: Version, **params: Any) -> str:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        version = session.get_one(Version, version.id)
        gate = gate_of(session, version)
        assert gate is not None
        job = jobs.create_job(session, rows.project_id, TrainWeaver("a", **params), adapter)
        return follow_up(session, adapter, version, gate, job)


def _champion(rows: Rows) -> int | None:
    with transaction(rows.services.sessions) as session:
        best = champion(session, get_adapter(session, rows.project_id, "bot"))
        return best.number if best else None


def _promote(rows: Rows, number: int) -> None:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        promote(session, adapter, "champion", get_version(session, adapter, number), actor="test", reason="")


def _decide(rows: Rows, number: int, *, approved: bool, expected: int | None = None) -> None:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        version = get_version(session, adapter, number)
        decide(session, adapter, version, approved=approved, actor="anna", reason="read it", expected=expected)


def _verdict(rows: Rows, number: int) -> str:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot")
        return verdict(gate_of(session, get_version(session, adapter, number)))


@pytest.fixture
def asked(rows: Rows) -> Rows:
    """Policy `manual`; versions 1 and 2 wait, 3 failed its gate."""
    _set(rows, gate_policy="manual")
    rows.task("a")
    for passed in (True, True, False):
        rows.version("a", passed=passed)
    return rows


def test_a_pass_promotes_by_itself(rows: Rows) -> None:
    rows.task("a")
    assert _follow(rows, rows.version("a", passed=False)) == "rejected; every alias stays where it is"
    assert (
        _follow(rows, rows.version("a"), promote=False)
        == "passed; the job was made with `promote` false, so that no alias moves"
    )
    assert _champion(rows) is None
    assert _follow(rows, rows.version("a")) == "passed; it is the champion now"
    assert _champion(rows) == 3


def test_a_version_that_waits_is_promoted_by_nobody_before_it_is_approved(asked: Rows) -> None:
    with transaction(asked.services.sessions) as session:
        versions = list(session.query(Version).order_by(Version.number))
    assert "waits" in _follow(asked, versions[0])
    assert [_verdict(asked, n) for n in (1, 2, 3)] == ["waiting", "waiting", "rejected"]
    with pytest.raises(GateNotPassed, match="bot@1 is waiting.*Approve it first"):
        _promote(asked, 1)
    _decide(asked, 1, approved=True)
    assert (_verdict(asked, 1), _champion(asked)) == ("passed", 1)
    with transaction(asked.services.sessions) as session:
        [move] = history(session, get_adapter(session, asked.project_id, "bot"), "champion")
        assert (move.actor, move.reason) == ("anna", "approved: read it")
        assert session.scalars(sa.select(GateDecision)).one().actor == "anna"


def test_a_rejection_is_final(asked: Rows) -> None:
    _decide(asked, 1, approved=False)
    assert (_verdict(asked, 1), _champion(asked)) == ("rejected", None)
    for number, state in ((1, "rejected"), (3, "rejected")):
        with pytest.raises(NothingToDecide, match=f"bot@{number} is {state}"):
            _decide(asked, number, approved=True)
    with pytest.raises(GateNotPassed, match="anna rejected it: read it"):
        _promote(asked, 1)
    with (
        pytest.raises(DBAPIError, match="rows of gate_decisions are immutable"),
        transaction(asked.services.sessions) as session,
    ):
        session.execute(sa.text("update gate_decisions set approved = true"))


def test_an_approval_holds_for_the_champion_that_was_compared_with(asked: Rows) -> None:
    _decide(asked, 1, approved=True)
    with pytest.raises(StaleAlias, match="is at version 1, not none as expected"):
        _decide(asked, 2, approved=True)
    assert _verdict(asked, 2) == "waiting"
    _decide(asked, 2, approved=True, expected=1)
    assert _champion(asked) == 2


def test_of_concurrent_decisions_one_is_made(asked: Rows) -> None:
    def attempt(number: int) -> bool:
        try:
            _decide(asked, 1, approved=number % 2 == 0)
        except NothingToDecide:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(attempt, range(8)))
    assert sum(made) == 1
    approved = made.index(True) % 2 == 0
    assert _champion(asked) == (1 if approved else None)


def test_a_pass_starts_a_canary(rows: Rows) -> None:
    _set(rows, gate_policy="canary", canary_share=0.2)
    rows.task("a")
    assert _follow(rows, rows.version("a")) == "passed; it is the champion now"  # there was nothing to try it beside
    assert _follow(rows, rows.version("a")) == "passed; route 1 gives it 20% of the sessions"
    told = _follow(rows, rows.version("a"))
    assert told.startswith("passed; no canary was started: route 1 (canary) of bot is live")
    assert told.endswith(". This version is tried next if that one is stopped")
    assert _champion(rows) == 1
    with transaction(rows.services.sessions) as session:
        route = live_route(session, get_adapter(session, rows.project_id, "bot"))
        assert route is not None
        assert weights_of(route) == {1: 0.8, 2: 0.2}
        assert (route.promotion, route.margin) == ("non_inferior", 0.05)


def test_a_pass_beside_another_route_says_that_its_canary_is_left_to_a_person(rows: Rows) -> None:
    _set(rows, gate_policy="canary")
    rows.task("a")
    _follow(rows, rows.version("a"))
    rows.version("a")
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        start_shadow(session, adapter, 2, 1.0, actor="anna", reason="look")
    told = _follow(rows, rows.version("a"))
    assert told.startswith("passed; no canary was started: route 1 (shadow) of bot is live")
    assert told.endswith(". Then start its canary by hand")


def test_forgetting_is_followed_by_one_training_with_more_replay(rows: Rows) -> None:
    rows.task("a")
    version = rows.version("a", passed=False)
    forgotten = compare("b", new=False, baseline=[1.0], candidate=[0.0], terms=GateTerms(0.05))
    learned = compare("a", new=True, baseline=[0.0], candidate=[0.0], terms=GateTerms(0.05))

    def retry(comparisons: list[Any], request: JobRequest | None = None) -> Job | None:
        with transaction(rows.services.sessions) as session:
            adapter = get_adapter(session, rows.project_id, "bot", lock=True)
            job = jobs.create_job(session, rows.project_id, request or TrainWeaver("a"), adapter)
            return retry_of(session, adapter, session.get_one(Version, version.id), job, comparisons)

    assert retry([forgotten]) is None
    _set(rows, retry_replay_share=0.6)
    made = retry([learned, forgotten], TrainWeaver.from_json({"task": "a", "training": {"seed": 3}}))
    assert made is not None
    assert (made.kind, made.state) == ("train_weaver", "queued")
    assert made.params == {"task": "a", "training": {"seed": 3}, "retry_of": 1, "replay_share": 0.6}
    assert retry([forgotten], jobs.request_of(made)) is None, "a retry is never retried"
    assert retry([learned]) is None
    assert retry([forgotten], CheckImport(1)) is None
    _set(rows, strategy="sequential")
    assert retry([forgotten]) is None
