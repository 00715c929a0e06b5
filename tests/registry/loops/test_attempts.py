"""What became of each version is said as it was: who ended a canary, who rolled back, what it waits for."""

import pytest
import sqlalchemy as sa

from registry import jobs
from registry.adapters import change_adapter, get_adapter
from registry.database import transaction
from registry.job_requests import TrainWeaver
from registry.loops.attempts import JudgedVersion
from registry.loops.plan import LoopPlan
from registry.models import Job
from registry.serving.aliases import promote, roll_back
from registry.versions.records import get_version
from tests.registry.conftest import Rows
from tests.registry.loops.looped import Looped, make_looped


@pytest.fixture
def looped(rows: Rows) -> Looped:
    """Version 1 is the champion."""
    made = make_looped(rows, LoopPlan(after=5, settings={"canary_share": 0.5}))
    made.judge(passed=True)
    return made


def _newest(looped: Looped) -> JudgedVersion:
    return looped.report().attempts[0]


def _promote(looped: Looped, number: int) -> None:
    with transaction(looped.rows.services.sessions) as session:
        adapter = looped.routed.adapter(session)
        promote(session, adapter, "champion", get_version(session, adapter, number), actor="ben", reason="I know it")


def _roll_back(looped: Looped) -> None:
    with transaction(looped.rows.services.sessions) as session:
        roll_back(session, looped.routed.adapter(session), "champion", actor="ben", reason="it is rude")


def test_a_canary_that_somebody_ended_was_tried_without_a_result(looped: Looped) -> None:
    looped.judge(passed=True)
    looped.routed.end(1)
    found = _newest(looped)
    assert (found.version, found.outcome, found.reason) == (2, "undecided", "anna ended route 1: enough")
    assert looped.report().failures == 0


def test_a_canary_that_a_move_of_the_champion_ended_says_so(looped: Looped) -> None:
    looped.judge(passed=True)
    looped.routed.end(1)
    looped.judge(passed=True)
    _promote(looped, 2)
    found = {each.version: each for each in looped.report().attempts}
    assert (found[2].outcome, found[2].reason) == ("promoted", "I know it")
    assert (found[3].outcome, found[3].reason) == ("undecided", "ben ended route 2: bot@champion moved to version 2")


def test_what_was_rolled_back_is_no_success(looped: Looped) -> None:
    looped.judge(passed=True)
    _promote(looped, 2)
    _roll_back(looped)
    second, first = looped.report().attempts
    assert (second.version, second.outcome, second.reason) == (2, "rolled_back", "it is rude")
    assert (first.version, first.outcome, first.reason) == (1, "promoted", "rolled back to: it is rude")
    assert looped.report().failures == 1
    _promote(looped, 2)
    assert _newest(looped).outcome == "promoted"


def test_three_rollbacks_in_a_row_hold_it(looped: Looped) -> None:
    for number in (2, 3, 4):
        looped.judge(passed=True)
        _promote(looped, number)
        _roll_back(looped)
    loop = looped.check()
    assert (loop.state, loop.held) == ("gate_rejected", True)
    assert "the last is bot@4: it is rude" in loop.reason


def test_a_version_that_a_person_is_to_approve_names_the_command(looped: Looped) -> None:
    with transaction(looped.rows.services.sessions) as session:
        adapter = get_adapter(session, looped.rows.project_id, "bot", lock=True)
        change_adapter(session, adapter, {"gate_policy": "manual"}, actor="ben", reason="")
    looped.judge(passed=True)
    found = _newest(looped)
    assert (found.outcome, found.reason) == ("waiting", "its gate asks a person: `memgen gate approve bot 2`")


def test_what_waits_behind_a_canary_or_another_route_says_for_what(looped: Looped) -> None:
    looped.judge(passed=True)
    looped.judge(passed=True)
    found = _newest(looped)
    assert (found.version, found.outcome) == (3, "waiting")
    assert found.reason == "its turn comes if route 1 stops bot@2 as worse"
    looped.routed.rate_sessions(lambda label, _: 1.0 if label == "bot@2" else 0.0, 60)
    assert _newest(looped).reason == "its gate compared it with bot@1, and the champion is bot@2 now"
    looped.routed.start_shadow(1)
    looped.judge(passed=True)
    assert _newest(looped).reason == (
        "route 2 (shadow) is live, and no canary starts beside it; when it has ended: `memgen route canary bot 4`"
    )


def test_a_version_whose_gate_has_not_run_is_shown(looped: Looped) -> None:
    looped.rows.version("a", passed=None)
    found = _newest(looped)
    assert (found.version, found.outcome) == (2, "unchecked")
    assert "is still at it" in found.reason
    with transaction(looped.rows.services.sessions) as session:
        job = session.scalars(sa.select(Job).where(Job.state.in_(jobs.LIVE))).one()
        looped.end(job.id, "failed", "the suite could not be read")
    assert _newest(looped).reason.endswith("failed before its gate: `memgen gate run bot 2`")
    assert looped.check().state == "training_failed"


def test_a_canary_that_is_stopped_after_a_resume_counts(looped: Looped) -> None:
    """Its gate was before: what counts is when it failed."""
    looped.judge(passed=True)
    looped.resume()
    looped.pass_hours(1)
    looped.routed.rate_sessions(lambda label, _: 0.0 if label == "bot@2" else 1.0, 60)
    with transaction(looped.rows.services.sessions) as session:
        looped.date(session, "route_changes", "at = :at where kind = 'stopped'")
    assert looped.check().state == "canary_stopped"
    assert looped.report().failures == 1


def test_a_training_by_hand_that_succeeds_ends_the_warning(looped: Looped) -> None:
    looped.send(40, "more", reward=1.0)
    job_id = looped.tick()
    assert job_id is not None
    looped.end(job_id, "failed", "the disk was full")
    assert looped.check().state == "training_failed"
    looped.pass_hours(0.1)
    looped.judge(passed=False)
    assert looped.check().state == "running"


def test_a_loop_waits_for_a_training_that_somebody_started(looped: Looped) -> None:
    looped.send(40, "more", reward=1.0)
    with transaction(looped.rows.services.sessions) as session:
        adapter = get_adapter(session, looped.rows.project_id, "bot")
        request = TrainWeaver.from_json({"task": "a"})
        job = jobs.create_job(session, looped.rows.project_id, request, adapter)
    assert looped.tick() is None
    assert looped.why_skipped() == f"job {job.id} learns a already and is still queued"
    assert looped.report().waiting.why_not == looped.why_skipped()
    looped.end(job.id, "succeeded")
    assert looped.tick() is not None
