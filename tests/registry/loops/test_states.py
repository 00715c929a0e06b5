"""What stops a loop is a visible state with advice, found by the beat; what it holds burns no trainings."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.database import transaction
from registry.errors import LoopNotFound
from registry.loops.disks import Disk, disks_of, full_disks
from registry.loops.loops import delete_loop, get_loop
from registry.loops.plan import LoopPlan
from registry.loops.silence import FEW_RUNS
from registry.loops.states import check_loop, loops_to_check
from registry.models import Job, Loop, Project, Schedule
from registry.schedules.schedules import Change, change_schedule, delete_schedule
from tests.registry.conftest import Rows, refused_as_immutable
from tests.registry.loops.looped import Looped, make_looped


@pytest.fixture
def looped(rows: Rows) -> Looped:
    return make_looped(rows, LoopPlan(after=5))


def test_a_loop_that_has_what_it_needs_runs(looped: Looped) -> None:
    loop = looped.check()
    assert (loop.state, loop.held, loop.reason, loop.checked_at) == ("running", False, "", looped.now)
    assert looped.events() == []
    assert looped.tick() is not None


def test_three_rejections_in_a_row_hold_it_until_a_person_resumes(looped: Looped) -> None:
    for _ in range(2):
        looped.judge(passed=False)
        assert looped.check().state == "running"
    looped.judge(passed=False)
    looped.send(40, "more", reward=1.0)
    assert looped.tick() is None, "also before the beat has looked: it would have been a fourth training"
    assert looped.why_skipped().startswith("the loop is held (gate_rejected): 3 versions in a row were rejected")
    loop = looped.check()
    assert (loop.state, loop.held) == ("gate_rejected", True)
    assert "memgen gate show bot 3" in loop.advice
    assert "memgen loop resume bot" in loop.advice
    looped.pass_hours(1)
    assert looped.resume().state == "running"
    job_id = looped.tick()
    assert job_id is not None
    looped.end(job_id, "succeeded")
    looped.pass_hours(1)
    looped.judge(passed=False)
    assert looped.check().state == "running", "failures are counted anew"
    assert [(event, data["state"], data["was"]) for event, data in looped.events()] == [
        ("loop.stopped", "gate_rejected", "running"),
        ("loop.resumed", "running", "gate_rejected"),
    ]
    assert [(c.kind, c.from_state, c.to_state, c.actor) for c in looped.changes()[:2]] == [
        ("resumed", "gate_rejected", "running", "anna"),
        ("stopped", "running", "gate_rejected", "beat"),
    ]


def test_a_promotion_between_rejections_counts_them_anew(looped: Looped) -> None:
    for passed in (False, False, True, False, False):
        looped.judge(passed=passed)
    assert looped.check().state == "running"
    assert looped.report().failures == 2


def test_trainings_by_hand_that_move_no_alias_are_experiments(looped: Looped) -> None:
    for _ in range(4):
        looped.judge(passed=False, promote=False)
    assert looped.check().state == "running"


def test_failed_trainings_warn_and_then_hold(looped: Looped) -> None:
    for number in range(3):
        looped.send(40, f"round {number}", reward=1.0)
        job_id = looped.tick()
        assert job_id is not None
        looped.end(job_id, "failed", f"CUDA out of memory\nat line {number}")
        loop = looped.check()
        assert (loop.state, loop.held) == ("training_failed", number == 2)
        assert str(job_id) in loop.advice
        assert loop.reason.endswith("CUDA out of memory")
        looped.pass_hours(1)
    looped.send(40, "one more", reward=1.0)
    assert looped.tick() is None
    assert [data["held"] for _, data in looped.events()] == [False, True]
    assert "CUDA" not in str(looped.events()), "what a job said of its data does not leave the service"
    looped.resume()
    assert looped.tick() is not None


def test_a_success_ends_the_warning_by_itself(looped: Looped) -> None:
    first = looped.tick()
    assert first is not None
    looped.end(first, "failed", "no")
    assert looped.check().state == "training_failed"
    looped.send(40, "again", reward=1.0)
    second = looped.tick()
    assert second is not None
    looped.end(second, "succeeded")
    assert looped.check().state == "running"
    assert [event for event, _ in looped.events()] == ["loop.stopped", "loop.resumed"]


def _try(looped: Looped) -> None:
    """A champion, and a version that passed and is tried on half of the sessions."""
    looped.judge(passed=True)
    looped.set_up(LoopPlan(settings={"canary_share": 0.5}))
    looped.judge(passed=True)
    assert looped.routed.live() is not None


def test_a_canary_is_awaited_before_more_is_learned(looped: Looped) -> None:
    _try(looped)
    looped.send(40, "more", reward=1.0)
    assert looped.tick() is None
    assert looped.why_skipped().startswith("the canary of bot@2 is not decided")
    assert looped.check().state == "running"
    canary = looped.report().canary
    assert canary is not None
    assert (canary.version, canary.share, canary.rewarded, canary.days_needed) == (2, 0.5, 0, None)
    looped.routed.end(1)
    assert looped.tick() is not None


def test_a_canary_that_users_find_worse_is_seen_and_counts_as_a_failure(looped: Looped) -> None:
    looped.judge(passed=False)
    looped.judge(passed=False)
    _try(looped)
    looped.routed.rate_sessions(lambda label, _: 0.0 if label == "bot@4" else 1.0, 60)
    assert looped.routed.live() is None
    loop = looped.check()
    assert (loop.state, loop.held) == ("canary_stopped", False)
    assert loop.reason.startswith("bot@4 passed its gate, but users' rewards were worse")
    assert "(1 so far)" in loop.advice
    looped.send(40, "more", reward=1.0)
    assert looped.tick() is not None, "one bad day does not end the learning"
    looped.judge(passed=False)
    looped.judge(passed=False)
    assert looped.check().state == "gate_rejected"


def test_a_canary_that_users_find_better_is_promoted_and_the_loop_runs(looped: Looped) -> None:
    _try(looped)
    looped.routed.rate_sessions(lambda label, _: 1.0 if label == "bot@2" else 0.0, 60)
    assert looped.check().state == "running"
    report = looped.report()
    assert (report.champion, report.canary, report.failures) == (2, None, 0)
    assert [attempt.outcome for attempt in report.attempts] == ["promoted", "promoted"]


def test_a_canary_without_answers_or_rewards_is_a_state(rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(after=5, quiet_hours=6))
    _try(looped)
    looped.pass_hours(5)
    assert looped.check().state == "running"
    looped.pass_hours(2)
    loop = looped.check()
    assert (loop.state, loop.held) == ("canary_without_traffic", False)
    assert loop.reason == "route 1 gives bot@2 50% of the sessions, and it has answered nothing for 7 hours"
    routed = looped.routed
    answers = [routed.ask(f"s{number}") for number in range(24)]
    with transaction(rows.services.sessions) as session:
        looped.date(session, "exposures", "at = :at")
    loop = looped.check()
    assert loop.state == "canary_without_traffic"
    tried = sum(routed.answers[answer] == "bot@2" for answer in answers)
    assert f"{tried} answers got 0 rewards, none for 7 hours" in loop.reason
    for answer in answers:
        looped.routed.rate(answer, 1.0)
    with transaction(rows.services.sessions) as session:
        looped.date(session, "feedback", "at = :at")
    assert looped.check().state == "running"
    assert [data["state"] for _, data in looped.events()] == ["canary_without_traffic", "running"]


def test_nobody_asks(rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(after=500, quiet_hours=6))
    looped.pass_hours(7)
    loop = looped.check()
    assert (loop.state, loop.held) == ("no_traffic", False)
    assert "X-Memgen-Task: a" in loop.advice
    looped.pass_hours(1)
    assert looped.check().reason.endswith("for 8 hours"), "the hours pass, and the state is the same"
    assert len(looped.events()) == 1


def test_a_schedule_that_is_paused_or_deleted_by_hand_is_seen(rows: Rows, looped: Looped) -> None:
    name = looped.loop().schedule.name
    with transaction(rows.services.sessions) as session:
        change_schedule(session, rows.project_id, name, Change(paused=True), actor="ben")
    loop = looped.check()
    assert (loop.state, loop.reason) == ("paused", f"its schedule {name} is paused")
    assert looped.resume().state == "running", "both go on"
    assert looped.tick() is not None
    with transaction(rows.services.sessions) as session:
        delete_schedule(session, rows.project_id, name, actor="ben")
    assert looped.check().reason == f"its schedule {name} was deleted"
    assert looped.resume().state == "paused"
    made = {part.part: part.outcome for part in looped.set_up(LoopPlan(after=5))}
    assert (made["schedule"], made["loop"]) == ("made", "changed")
    assert looped.check().state == "running"


def test_pausing_and_resuming_twice_is_harmless(looped: Looped) -> None:
    for _ in range(2):
        loop = looped.pause()
        assert (loop.state, loop.held) == ("paused", True)
    assert looped.tick() is None
    for _ in range(2):
        assert looped.resume().state == "running"
    assert [change.kind for change in looped.changes()] == ["resumed", "paused", "created"]


def test_a_disk_that_is_almost_full_holds_and_frees_it_by_itself(rows: Rows, looped: Looped) -> None:
    looped.full_disks = (Disk("the home", Path("/home/memgen"), 1_200_000_000, 100_000_000_000),)
    assert looped.tick() is None
    loop = looped.check()
    assert (loop.state, loop.held) == ("disk", True)
    assert loop.reason == "the home (/home/memgen) has 1.2 GB free of 100 GB"
    looped.full_disks = ()
    assert looped.check().state == "running"
    assert looped.tick() is not None


def test_disks_are_those_of_the_home_each_once(rows: Rows) -> None:
    settings = rows.services.settings
    settings.home.mkdir(parents=True, exist_ok=True)
    [disk] = disks_of(settings)
    assert 0 < disk.free_bytes < disk.total_bytes
    assert full_disks(settings.model_copy(update={"min_free_bytes": 0})) == []
    [full] = full_disks(settings.model_copy(update={"min_free_bytes": disk.total_bytes}))
    assert full.place == "the home"
    assert disks_of(settings.model_copy(update={"home": Path("/nowhere"), "scratch": Path("/nowhere/tmp")})) == []


def test_its_times_come_and_never_is_enough_new(rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(cron="0 3 * * *", after=1000, quiet_hours=24))
    for day in range(8):
        looped.pass_hours(24)
        with transaction(rows.services.sessions) as session:
            looped.date(session, "trajectories", "created_at = :at, reward = 1.0")
        assert looped.tick() is None
        assert looped.check().state == ("nothing_new" if day >= 6 else "running")
    assert "30 of 1000 new runs wait" in looped.loop().reason
    assert "--after" in looped.loop().advice


def test_runs_that_nobody_rewards(rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(after=500, quiet_hours=6))
    looped.pass_hours(1)
    looped.send(FEW_RUNS, "order", reward=None)
    with transaction(rows.services.sessions) as session:
        looped.date(session, "trajectories", "created_at = :at, sampled = '[null]' where reward is null")
    looped.pass_hours(5.5)
    loop = looped.check()
    assert (loop.state, loop.held) == ("no_rewards", False)
    assert "POST /v1/feedback" in loop.advice


def test_beats_that_look_together_tell_once(looped: Looped) -> None:
    for _ in range(3):
        looped.judge(passed=False)
    together = threading.Barrier(6)

    def look(_: int) -> None:
        together.wait()
        with transaction(looped.rows.services.sessions) as session:
            [loop_id] = loops_to_check(session)
            check_loop(session, loop_id, looped.around)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(look, range(6)))
    assert [data["state"] for _, data in looped.events()] == ["gate_rejected"]


def test_history_is_immutable(looped: Looped) -> None:
    with refused_as_immutable("loop_changes"), transaction(looped.rows.services.sessions) as session:
        session.execute(sa.text("update loop_changes set actor = 'nobody'"))


def test_another_project_has_none(rows: Rows, looped: Looped) -> None:
    with transaction(rows.services.sessions) as session:
        other = Project(name="other")
        session.add(other)
        session.flush()
        with pytest.raises(LoopNotFound):
            get_loop(session, other.id, "bot")
        for name in ("\x00", "a" * 70, "bot2"):
            with pytest.raises(LoopNotFound):
                get_loop(session, rows.project_id, name)


def test_a_deleted_loop_is_looked_at_no_more_and_holds_nothing(rows: Rows, looped: Looped) -> None:
    with transaction(rows.services.sessions) as session:
        delete_loop(session, rows.project_id, "bot", actor="anna")
    with transaction(rows.services.sessions) as session:
        assert loops_to_check(session) == []
        assert session.scalars(sa.select(Schedule.deleted_at)).one() is not None
        assert session.scalar(sa.select(sa.func.count()).select_from(Job)) == 0
        assert session.scalars(sa.select(Loop.state)).one() == "running"


def test_failures_count_though_the_loop_was_resumed_by_a_clock_that_was_set_back(looped: Looped) -> None:
    looped.pass_hours(48)
    looped.resume()
    looped.pass_hours(-48)
    looped.check()
    looped.pass_hours(1)
    for _ in range(3):
        looped.judge(passed=False)
    assert looped.check().state == "gate_rejected"
