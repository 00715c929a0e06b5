"""How a canary ends by itself: stopped, promoted, or overtaken; who is tried next; with concurrent callers."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from registry import jobs
from registry.adapters import get_adapter
from registry.clock import utc_now
from registry.database import transaction
from registry.gates.gate import GateTerms, compare, record_gate
from registry.models import Alias, AliasMove, JobEvent, RouteChange, Version, VersionState
from registry.promotion import follow_up
from registry.serving.aliases import history, promote
from registry.serving.canaries import MONITOR, Outcome
from registry.serving.confidence_sequence import compare_means
from registry.serving.routes import Terms, route_history, weights_of
from registry.versions.champion import champion
from registry.versions.records import get_version
from tests.registry.conftest import Rows
from tests.registry.invariants import check_adapter
from tests.registry.routed import Routed, make_routed

BETTER = Terms(promotion="better")
NOT_WORSE = Terms(promotion="non_inferior", margin=0.5)


@pytest.fixture
def routed(rows: Rows) -> Routed:
    return make_routed(rows)


def _moves(routed: Routed) -> list[AliasMove]:
    with transaction(routed.rows.services.sessions) as session:
        return history(session, get_adapter(session, routed.rows.project_id, "bot"), "champion")


def _changes(routed: Routed, number: int = 1) -> list[RouteChange]:
    with transaction(routed.rows.services.sessions) as session:
        return route_history(session, routed.route(number))


def test_a_canary_that_is_worse_is_stopped_at_once(routed: Routed) -> None:
    routed.start_canary(2, 0.5)
    received = routed.rate_sessions(lambda label, number: 1.0 if label == "bot@1" else 0.0, 60)
    stops = [number for number, each in enumerate(received) if each.outcome == "stopped"]
    assert len(stops) == 1
    assert (routed.route(1).state, routed.live()) == ("stopped", None)
    # From the very next answer on, also for the sessions that had the canary.
    later = [routed.answers[routed.ask(f"s{number}")] for number in range(40)]
    assert set(later) == {"bot@1"}
    with transaction(routed.rows.services.sessions) as session:
        stopped = route_history(session, routed.route(1))[-1]
        champion = session.scalar(sa.text("select count(*) from alias_moves"))
    assert champion == 1
    assert (stopped.kind, stopped.actor) == ("stopped", MONITOR)
    assert stopped.reason.startswith("version 2 is worse than 1: -100.0 points, between -100.0 and ")
    evidence = stopped.evidence
    assert (evidence["verdict"], evidence["means"]) == ("worse", {"1": 1.0, "2": 0.0})
    assert evidence["interval"][1] < 0
    assert evidence["last_feedback"] == received[stops[0]].feedback.seq
    # The evidence is what the rows say: not one session fewer would have done.
    counts = evidence["sessions"]
    assert sum(counts.values()) == stops[0] + 1
    assert compare_means([1.0] * counts["1"], [0.0] * counts["2"]).verdict == "worse"
    assert compare_means([1.0] * (evidence["blocks"] - 1), [0.0] * (evidence["blocks"] - 1)).verdict == "not yet"


def test_without_leave_a_canary_that_is_better_goes_on(routed: Routed) -> None:
    routed.start_canary(2, 0.5)
    received = routed.rate_sessions(lambda label, number: 0.0 if label == "bot@1" else 1.0, 60)
    assert not any(each.outcome for each in received)
    stable, canary = routed.results().arms
    assert canary.difference is not None
    assert (canary.difference.verdict, canary.sessions_needed, stable.sessions_needed) == ("better", 0, 0)


def test_a_canary_that_is_better_becomes_the_champion_at_once(routed: Routed) -> None:
    routed.start_canary(2, 0.5, terms=BETTER)
    received = routed.rate_sessions(lambda label, number: 0.0 if label == "bot@1" else 1.0, 60)
    [last] = [number for number, each in enumerate(received) if each.outcome]
    assert received[last].outcome == "promoted"
    assert (routed.route(1).state, routed.live()) == ("promoted", None)
    assert {routed.answers[routed.ask(f"s{number}")] for number in range(40)} == {"bot@2"}
    _, move = _moves(routed)
    assert (move.kind, move.actor) == ("promotion", MONITOR)
    assert (move.from_version.number if move.from_version else None, move.to_version.number) == (1, 2)
    assert move.reason.startswith("version 2 is better than 1: +100.0 points, between ")
    started, promoted = _changes(routed)
    assert (started.kind, promoted.kind, promoted.actor, promoted.reason) == (
        "started",
        "promoted",
        MONITOR,
        move.reason,
    )
    evidence = move.evidence
    assert {**promoted.evidence, "route": 1, "gate": evidence["gate"]} == evidence
    assert (evidence["verdict"], evidence["means"], evidence["margin"]) == ("better", {"1": 0.0, "2": 1.0}, None)
    assert evidence["interval"][0] > 0
    assert evidence["last_feedback"] == received[last].feedback.seq
    assert sum(evidence["sessions"].values()) == last + 1
    assert compare_means([0.0] * (evidence["blocks"] - 1), [1.0] * (evidence["blocks"] - 1)).verdict == "not yet"


def test_a_canary_that_is_no_worse_becomes_the_champion(routed: Routed) -> None:
    routed.start_canary(2, 0.5, terms=NOT_WORSE)
    received = routed.rate_sessions(lambda label, number: 1.0, 60)
    [last] = [number for number, each in enumerate(received) if each.outcome]
    assert (received[last].outcome, routed.route(1).state) == ("promoted", "promoted")
    move = _moves(routed)[-1]
    assert move.to_version.number == 2
    assert move.reason.startswith("version 2 is not worse than 1 by 50 points: +0.0 points, between -")
    evidence = move.evidence
    assert (evidence["verdict"], evidence["non_inferior"], evidence["margin"]) == ("not yet", True, 0.5)
    assert evidence["interval"][0] > -0.5
    fewer = [1.0] * (evidence["blocks"] - 1)
    assert compare_means(fewer, fewer, margin=0.5).non_inferior is False
    found = routed.results().arms[1].difference
    assert found is not None
    assert (found.verdict, found.non_inferior, found.needed) == ("not yet", True, 0)


def test_as_good_is_not_better(routed: Routed) -> None:
    routed.start_canary(2, 0.5, terms=BETTER)
    received = routed.rate_sessions(lambda label, number: 1.0, 60)
    assert not any(each.outcome for each in received)
    found = routed.results().arms[1].difference
    assert found is not None
    assert (found.verdict, found.non_inferior) == ("not yet", None)


@pytest.mark.parametrize("terms", [BETTER, NOT_WORSE])
def test_one_that_may_be_promoted_is_stopped_if_worse(routed: Routed, terms: Terms) -> None:
    routed.start_canary(2, 0.5, terms=terms)
    received = routed.rate_sessions(lambda label, number: 1.0 if label == "bot@1" else 0.0, 60)
    assert [each.outcome for each in received if each.outcome] == ["stopped"]
    assert len(_moves(routed)) == 1


def test_concurrent_feedback_stops_a_canary_once(routed: Routed) -> None:
    routed.start_canary(2)
    answers = [routed.ask(f"s{number}") for number in range(80)]
    with ThreadPoolExecutor(8) as pool:
        received = list(pool.map(lambda a: routed.rate(a, 1.0 if routed.answers[a] == "bot@1" else 0.0), answers))
    assert [each.outcome for each in received if each.outcome] == ["stopped"]
    assert sum(each.feedback.counted for each in received) == 80
    with transaction(routed.rows.services.sessions) as session:
        assert [change.kind for change in route_history(session, routed.route(1))] == ["started", "stopped"]


@pytest.mark.parametrize("terms", [BETTER, NOT_WORSE])
def test_concurrent_feedback_promotes_a_canary_once(routed: Routed, terms: Terms) -> None:
    routed.start_canary(2, terms=terms)
    answers = [routed.ask(f"s{number}") for number in range(80)]
    with ThreadPoolExecutor(8) as pool:
        received = list(pool.map(lambda a: routed.rate(a, 0.0 if routed.answers[a] == "bot@1" else 1.0), answers))
    assert [each.outcome for each in received if each.outcome] == ["promoted"]
    assert sum(each.feedback.counted for each in received) == 80
    assert [change.kind for change in _changes(routed)] == ["started", "promoted"]
    assert [move.to_version.number for move in _moves(routed)] == [1, 2]


def _force_champion(session: Any, routed: Routed) -> None:
    adapter = get_adapter(session, routed.rows.project_id, "bot")
    session.get_one(Alias, (adapter.id, "champion")).version = get_version(session, adapter, 3)


def _archive_canary(session: Any, routed: Routed) -> None:
    version = get_version(session, get_adapter(session, routed.rows.project_id, "bot"), 2)
    session.add(VersionState(version_id=version.id, archived_at=utc_now()))


@pytest.mark.parametrize(
    ("meanwhile", "stands", "refusal"),
    [
        (_force_champion, 3, "bot@champion is at version 3"),
        (_archive_canary, 1, "bot@2 is archived"),
    ],
)
def test_a_canary_that_the_alias_does_not_allow_ends_and_says_so(
    routed: Routed, meanwhile: Any, stands: int, refusal: str
) -> None:
    """Behind the registry's back: moves of the champion end the route themselves."""
    routed.start_canary(2, terms=BETTER)
    answers = [routed.ask(f"s{number}") for number in range(60)]
    with transaction(routed.rows.services.sessions) as session:
        meanwhile(session, routed)
    received = [routed.rate(a, 0.0 if routed.answers[a] == "bot@1" else 1.0) for a in answers]
    assert [each.outcome for each in received if each.outcome] == ["ended"]
    assert routed.route(1).state == "ended"
    assert len(_moves(routed)) == 1
    with transaction(routed.rows.services.sessions) as session:
        best = champion(session, get_adapter(session, routed.rows.project_id, "bot"))
    assert best is not None
    assert best.number == stands
    ended = _changes(routed)[-1]
    assert (ended.kind, ended.actor, ended.evidence["verdict"]) == ("ended", MONITOR, "better")
    assert "version 2 is better than 1: +100.0 points" in ended.reason
    assert f"it was not promoted: {refusal}" in ended.reason


def test_a_canary_and_a_person_move_the_champion_at_once(routed: Routed) -> None:
    """Whoever is first; the canary never moves it from a version that it was not compared with."""
    outcomes = set()
    for before in (0, 20, 60):
        routed.move_champion(1)
        route = routed.start_canary(2, terms=BETTER)
        answers = [routed.ask(f"{before}-{number}") for number in range(60)]

        def rate(answer: str) -> str | None:
            return routed.rate(answer, 0.0 if routed.answers[answer] == "bot@1" else 1.0).outcome

        with ThreadPoolExecutor(6) as pool:
            rated = [pool.submit(rate, answer) for answer in answers[:before]]
            moved = pool.submit(routed.move_champion, 3)
            rated += [pool.submit(rate, answer) for answer in answers[before:]]
            ends = [each.result() for each in rated]
            moved.result()
        state = routed.route(route.number).state
        assert [end for end in ends if end] == (["promoted"] if state == "promoted" else [])
        assert state in ("promoted", "ended")
        outcomes.add(state)
        moves = _moves(routed)
        assert moves[-1].to_version.number == 3
        by_monitor = [move for move in moves if move.actor == MONITOR and move.evidence["route"] == route.number]
        assert [move.from_version.number for move in by_monitor if move.from_version] == [1] * (state == "promoted")
        with transaction(routed.rows.services.sessions) as session:
            check_adapter(session, get_adapter(session, routed.rows.project_id, "bot"))
    assert outcomes == {"promoted", "ended"}


def test_what_may_decide_waits_for_whoever_is_at_the_adapter(routed: Routed) -> None:
    """So that no two wait for each other: adapters are locked before routes and aliases."""
    routed.start_canary(2, terms=BETTER)
    answers = [routed.ask(f"s{number}") for number in range(40)]
    with ThreadPoolExecutor(1) as pool:
        with transaction(routed.rows.services.sessions) as session:
            adapter = routed.adapter(session)
            rated = [pool.submit(routed.rate, a, float(routed.answers[a] == "bot@2")) for a in answers]
            with pytest.raises(TimeoutError):
                rated[0].result(timeout=1)
            promote(session, adapter, "champion", get_version(session, adapter, 3), expected=1, actor="boss", reason="")
        assert {each.result().outcome for each in rated} == {None}
    assert routed.route(1).state == "ended"
    assert [move.to_version.number for move in _moves(routed)] == [1, 3]


def _decide(routed: Routed, best: str | None) -> Outcome | None:
    """Rate one session after the other until the live canary ends; only `best` is good, or with None all are."""
    for number in range(80):
        answer = routed.ask(f"s{number}")
        outcome = routed.rate(answer, float(best in (None, routed.answers[answer]))).outcome
        if outcome:
            return outcome
    return None


def _passes(routed: Routed, **params: Any) -> tuple[Version, str]:
    """A version that the gate passes beside the champion, and what followed from it."""
    version = routed.rows.version("a", passed=None)
    with transaction(routed.rows.services.sessions) as session:
        adapter = routed.adapter(session)
        version, best = session.get_one(Version, version.id), champion(session, adapter)
        job, terms = jobs.get_job(session, routed.rows.project_id, version.job_id), GateTerms(margin=0.05)
        job.params = {**job.params, **params}
        compared = [compare("a", new=True, baseline=[0.0], candidate=[1.0], terms=terms)]
        gate = record_gate(
            session, version, baseline=best, comparisons=compared, terms=terms, policy=adapter.gate_policy
        )
        return version, follow_up(session, adapter, version, gate, job)


def _events(routed: Routed, version: Version) -> list[tuple[str, str]]:
    with transaction(routed.rows.services.sessions) as session:
        query = sa.select(JobEvent).where(JobEvent.job_id == version.job_id, JobEvent.level.in_(["info", "warning"]))
        return [(event.level, event.message) for event in session.scalars(query) if "route" in event.data]


@pytest.fixture
def nightly(routed: Routed) -> Routed:
    """Policy `canary` beside version 1; 7, 8 and 9 passed one after the other, 10 for nobody; route 1 tries 7."""
    with transaction(routed.rows.services.sessions) as session:
        adapter = routed.adapter(session)
        adapter.gate_policy, adapter.canary_share, adapter.canary_margin = "canary", 0.5, 0.5
    assert _passes(routed)[1] == "passed; route 1 gives it 50% of the sessions"
    for _ in range(2):
        message = _passes(routed)[1]
        assert message.startswith("passed; no canary was started: route 1 (canary) of bot is live")
        assert message.endswith("This version is tried next if that one is stopped")
    _passes(routed, promote=False)
    return routed


def test_the_policy_says_how_its_canaries_end(nightly: Routed) -> None:
    route = nightly.route(1)
    assert (route.promotion, route.margin, weights_of(route)) == ("non_inferior", 0.5, {1: 0.5, 7: 0.5})
    nightly.end(1)
    with transaction(nightly.rows.services.sessions) as session:
        nightly.adapter(session).canary_promotion = "never"
    assert "route 2" in _passes(nightly)[1]
    assert (nightly.route(2).promotion, nightly.route(2).margin) == ("never", None)


def test_the_newest_that_waited_is_tried_once_a_canary_is_stopped(nightly: Routed) -> None:
    assert _decide(nightly, "bot@1") == "stopped"
    live = nightly.live()
    assert live is not None
    assert (live.number, live.promotion, weights_of(live)) == (2, "non_inferior", {1: 0.5, 9: 0.5})
    assert [(c.kind, c.actor, c.reason) for c in _changes(nightly, 2)] == [
        ("started", MONITOR, "passed its gate, and waited until route 1 was stopped")
    ]
    version = live.arms[1].version
    assert _events(nightly, version) == [("info", "route 2 gives it 50% of the sessions, because route 1 was stopped")]
    # One after the other, until nobody is left.
    assert _decide(nightly, "bot@1") == "stopped"
    assert weights_of(nightly.route(3)) == {1: 0.5, 8: 0.5}
    assert _decide(nightly, "bot@1") == "stopped"
    assert nightly.live() is None
    assert [move.to_version.number for move in _moves(nightly)] == [1]


def test_nobody_who_was_compared_with_the_former_champion_is_tried_after_a_promotion(nightly: Routed) -> None:
    assert _decide(nightly, None) == "promoted"
    assert [move.to_version.number for move in _moves(nightly)] == [1, 7]
    assert nightly.live() is None
    with transaction(nightly.rows.services.sessions) as session:
        adapter = nightly.adapter(session)
        versions = [get_version(session, adapter, number) for number in (7, 8, 9, 10)]
    found = [_events(nightly, version) for version in versions]
    assert [len(events) for events in found] == [0, 1, 1, 0]
    [[level, message]] = found[1]
    assert level == "warning"
    assert message.startswith("bot@8 is not tried: its gate compared it with version 1, and version 7 is the champion")
    # The next one is compared with the new champion, and tried; nobody follows if it is stopped.
    assert "route 2" in _passes(nightly)[1]
    assert (_decide(nightly, "bot@7"), nightly.live()) == ("stopped", None)


def test_one_that_was_champion_meanwhile_is_not_tried_again(nightly: Routed) -> None:
    nightly.move_champion(9)
    nightly.move_champion(1)
    assert "route 2" in _passes(nightly)[1]
    assert _decide(nightly, "bot@1") == "stopped"
    assert weights_of(nightly.route(3)) == {1: 0.5, 8: 0.5}


def test_a_person_who_ends_a_canary_has_the_champion_alone(nightly: Routed) -> None:
    nightly.end(1)
    assert nightly.live() is None


def test_no_other_is_tried_once_the_policy_is_another(nightly: Routed) -> None:
    with transaction(nightly.rows.services.sessions) as session:
        nightly.adapter(session).gate_policy = "manual"
    assert (_decide(nightly, "bot@1"), nightly.live()) == ("stopped", None)


def test_one_that_was_archived_while_it_waited_is_passed_over(nightly: Routed) -> None:
    with transaction(nightly.rows.services.sessions) as session:
        newest = get_version(session, nightly.adapter(session), 9)
        session.add(VersionState(version_id=newest.id, archived_at=utc_now()))
    assert _decide(nightly, "bot@1") == "stopped"
    live = nightly.live()
    assert live is not None
    assert weights_of(live) == {1: 0.5, 8: 0.5}
