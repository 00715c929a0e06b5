"""A worker, rewards, a canary's result or enough new runs stay away: each is a state that says what is lacking."""

import sqlalchemy as sa

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.job_requests import JudgeTrajectories
from registry.judging.judgements import CaseFinding, record_finding
from registry.judging.judges import JudgeSettings, create_judge
from registry.loops.plan import LoopPlan
from registry.loops.silence import FEW_RUNS
from registry.models import Job, Trajectory, VersionState
from registry.serving.aliases import promote
from registry.versions.records import get_version
from registry.versions.state import withdraw
from tests.registry.conftest import Rows
from tests.registry.loops.looped import Looped, make_looped


def _record(looped: Looped, count: int, word: str) -> None:
    """Runs that were answered here, and that nobody rewarded."""
    looped.send(count, word, reward=None)
    with transaction(looped.rows.services.sessions) as session:
        mine = f"created_at = :at, sampled = '[null]' where messages::text like '%Where is {word} %'"
        looped.date(session, "trajectories", mine)


def _start(looped: Looped) -> Job:
    job_id = looped.tick()
    assert job_id is not None
    with transaction(looped.rows.services.sessions) as session:
        looped.date(session, "job_events", "at = :at")
        return session.get_one(Job, job_id)


def test_no_worker_takes_a_training(rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(after=5))
    job = _start(looped)
    assert looped.report().waiting.why_not == f"its last job {job.id} is still queued"
    looped.pass_hours(0.2)
    assert looped.check().state == "running"
    looped.pass_hours(0.1)
    loop = looped.check()
    assert (loop.state, loop.held) == ("no_worker", False)
    assert loop.reason == f"job {job.id} has waited for a worker for 18 minutes, and none works on anything"
    assert "memgen status" in loop.advice
    with transaction(rows.services.sessions) as session:
        request = JudgeTrajectories(judge="strict", task="a", model="strong/one", up_to=0, max_calls=1)
        assert jobs.claim(session, jobs.create_job(session, rows.project_id, request).id, "w", 60) == 1
    assert looped.check().state == "no_worker", "who asks an upstream trains nothing"
    with transaction(rows.services.sessions) as session:
        assert jobs.claim(session, job.id, "w", 60) == 1
    assert looped.check().state == "running"


def test_a_long_queue_is_no_dead_worker(rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(after=5))
    job = _start(looped)
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot")
        other = jobs.create_job(session, rows.project_id, jobs.request_of(job), adapter)
        jobs.claim(session, other.id, "w", 60)
    looped.pass_hours(5)
    assert looped.check().state == "running"


def test_a_champion_that_no_training_can_go_on_from(rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(after=5))
    for _ in range(2):
        looped.judge(passed=True)
    looped.routed.end(1)
    with transaction(rows.services.sessions) as session:
        adapter = looped.routed.adapter(session)
        withdraw(session, get_version(session, adapter, 1), actor="ben", reason="", evidence={})
    looped.send(40, "more", reward=1.0)
    assert looped.tick() is None
    loop = looped.check()
    assert (loop.state, loop.held) == ("champion_lost", True)
    assert "bot@1 was withdrawn" in loop.reason
    assert "`memgen train bot --task a --parent 0`" in loop.advice
    with transaction(rows.services.sessions) as session:
        adapter = looped.routed.adapter(session)
        promote(session, adapter, "champion", get_version(session, adapter, 2), actor="ben", reason="")
    assert looped.check().state == "running"
    assert looped.tick() is not None


def test_a_canary_that_is_never_decided_is_a_state(rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(cron="0 3 * * *", quiet_hours=6, settings={"canary_share": 0.5}))
    for _ in range(2):
        looped.judge(passed=True)
    for _ in range(4):
        looped.pass_hours(12)
        looped.send(5, f"at {looped.now}", reward=1.0)
        assert looped.tick() is None
        looped.routed.rate_sessions(lambda _, number: float(number % 2), 16)
        with transaction(rows.services.sessions) as session:
            looped.date(session, "exposures", "at = :at")
            looped.date(session, "feedback", "at = :at")
    loop = looped.check()
    assert (loop.state, loop.held) == ("canary_undecided", False)
    assert "more to a result" in loop.reason
    assert "`memgen promote bot 2`" in loop.advice
    looped.routed.end(1)
    assert looped.check().state == "running"


def test_without_a_clock_never_enough_is_new(rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(after=1000, quiet_hours=24))
    for day in range(8):
        looped.pass_hours(24)
        looped.send(3, f"day {day}", reward=0.2)
        with transaction(rows.services.sessions) as session:
            looped.date(session, "trajectories", "created_at = :at, rewarded_at = :at")
        assert looped.check().state == ("nothing_new" if day >= 6 else "running")
    reason = looped.loop().reason
    assert "of 1000 new runs wait; not counted: 24 with a reward below 0.5, " in reason
    assert reason.endswith(" held out")


def test_a_reward_that_nobody_can_get(rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(cron="0 3 * * *", min_reward=5.0))
    with transaction(rows.services.sessions) as session:
        session.execute(sa.delete(Trajectory))
    looped.send(20, "order", reward=1.0)
    assert looped.tick() is None
    assert looped.why_skipped().endswith("; not counted: 20 with a reward below 5")
    waiting = looped.report().waiting
    assert (waiting.new, waiting.not_counted.low_reward, waiting.min_reward) == (0, 20, 5.0)
    assert waiting.why_not == looped.why_skipped()


def test_what_does_not_count_is_counted_by_its_first_reason(rows: Rows) -> None:
    looped = make_looped(rows)
    looped.judge(passed=True)
    _record(looped, 12, "recorded")
    looped.send(7, "bad", reward=0.0)
    looped.send(5, "failed", success=False, reward=1.0)
    found = looped.report().waiting.not_counted
    assert (found.unrewarded, found.low_reward, found.failed) == (12, 7, 5)
    assert found.held_out >= 0


def test_scores_that_are_kept_apart_are_no_rewards(rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(after=500, quiet_hours=6))
    looped.pass_hours(1)
    _record(looped, FEW_RUNS + 1, "order")
    with transaction(rows.services.sessions) as session:
        judge, _ = create_judge(
            session,
            rows.project_id,
            name="strict",
            kind="pointwise",
            model="base",
            rubric="r",
            settings=JudgeSettings(),
        )
        request = JudgeTrajectories(judge="strict", task="a", model="base", version=None, up_to=0, max_calls=1)
        job = jobs.create_job(session, rows.project_id, request).id
        [scored] = session.scalars(sa.select(Trajectory.id).order_by(Trajectory.seq.desc()).limit(1))
        record_finding(session, judge, job, CaseFinding((scored,), "scored", "r", "base", ("h",), (0.9,), ({},)))
        looped.date(session, "trajectory_rewards", "at = :at")
    looped.pass_hours(5.5)
    loop = looped.check()
    assert loop.state == "no_rewards"
    assert "--judge NAME" in loop.advice


def test_a_purged_champion_is_lost_too(rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(after=5))
    version = looped.judge(passed=True)
    with transaction(rows.services.sessions) as session:
        session.add(VersionState(version_id=version.id, purged_at=looped.now))
    assert "were removed by retention" in looped.check().reason
