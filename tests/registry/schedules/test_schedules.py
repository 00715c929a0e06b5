"""Schedules on real PostgreSQL: due once whatever the number of beats, made up for once, and honest when skipped."""

import re
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from registry import jobs
from registry.adapters import get_adapter
from registry.clock import utc_now
from registry.database import transaction
from registry.datasets import snapshots
from registry.deletion.deletions import delete_data
from registry.deletion.scope import DeletionSubject
from registry.errors import InvalidSchedule, NameTaken, ScheduleNotFound
from registry.gates.gate import GateTerms, compare
from registry.models import Exposure, Job, Schedule, ScheduleRun, Trajectory, Version
from registry.promotion import retry_of
from registry.schedules.cron import Cron
from registry.schedules.schedules import (
    Change,
    Idle,
    NewTrajectories,
    TrainingRequest,
    When,
    change_schedule,
    create_schedule,
    delete_schedule,
    get_schedule,
    list_changes,
    next_runs,
    when_of,
)
from registry.schedules.ticks import bring_back, schedules_to_ask, tick
from registry.serving.aliases import promote
from registry.tasks import get_task
from registry.trajectories.imports import import_batch, read_item
from tests.registry.conftest import TOKENS, Rows, chats

HOURLY = Cron("0 * * * *")


def _create(rows: Rows, when: When, name: str = "nightly", task: str = "a") -> uuid.UUID:
    with transaction(rows.services.sessions) as session:
        return create_schedule(
            session,
            rows.project_id,
            name,
            adapter=get_adapter(session, rows.project_id, "bot"),
            task=get_task(session, rows.project_id, task),
            when=when,
            request=TrainingRequest({"steps": 5}),
            actor="test",
        ).id


def _tick(rows: Rows, now: datetime) -> list[uuid.UUID]:
    """As one beat does it."""
    started = []
    with transaction(rows.services.sessions) as session:
        waiting = schedules_to_ask(session, now)
    for schedule_id in waiting:
        with transaction(rows.services.sessions) as session:
            started.append(tick(session, schedule_id, now))
    return [job_id for job_id in started if job_id is not None]


def _due(rows: Rows, schedule_id: uuid.UUID, at: datetime) -> None:
    with transaction(rows.services.sessions) as session:
        session.execute(sa.update(Schedule).where(Schedule.id == schedule_id).values(next_run_at=at))


def _runs(rows: Rows) -> list[ScheduleRun]:
    with transaction(rows.services.sessions) as session:
        return list(session.scalars(sa.select(ScheduleRun).order_by(ScheduleRun.seq)))


def _end(rows: Rows, job_id: uuid.UUID, state: str) -> None:
    with transaction(rows.services.sessions) as session:
        session.execute(sa.update(Job).where(Job.id == job_id).values(state=state))


def _send(rows: Rows, count: int, word: str, **envelope: Any) -> None:
    with transaction(rows.services.sessions) as session:
        sent = [read_item(n, item) for n, item in enumerate(chats(count, word=word, **envelope))]
        import_batch(session, rows.project_id, sent, default_task="a", tokens=TOKENS)


def test_a_cron_schedule_starts_an_ordinary_training(rows: Rows) -> None:
    rows.task("a")
    schedule_id, now = _create(rows, HOURLY), utc_now()
    assert _tick(rows, now) == []
    [job_id] = _tick(rows, now + timedelta(hours=1))
    with transaction(rows.services.sessions) as session:
        job = session.get_one(Job, job_id)
        assert (job.kind, job.state, job.project_id) == ("train_weaver", "queued", rows.project_id)
        assert job.params == {
            "task": "a",
            "parent": None,
            "training": {"steps": 5},
            "min_reward": 0.5,
            "promote": True,
        }
        assert "started by schedule nightly" in [e.message for e in jobs.list_events(session, job_id, after=0, limit=9)]
        assert session.get_one(Schedule, schedule_id).last_job_id == job_id
    [run] = _runs(rows)
    assert (run.outcome, run.job_id, run.missed) == ("started", job_id, 0)
    assert run.new_trajectories > 20


def test_beats_that_tick_together_start_one_job(rows: Rows) -> None:
    rows.task("a")
    schedule_id, now = _create(rows, HOURLY), utc_now() + timedelta(hours=1)
    together = threading.Barrier(8)

    def beat(_: int) -> uuid.UUID | None:
        together.wait()
        with transaction(rows.services.sessions) as session:
            return tick(session, schedule_id, now)

    for _ in range(3):
        _due(rows, schedule_id, now)
        with ThreadPoolExecutor(8) as pool:
            started = [job_id for job_id in pool.map(beat, range(8)) if job_id is not None]
        assert len(started) == 1
        _end(rows, started[0], "failed")
    assert len(_runs(rows)) == 3


def test_a_second_beat_behind_a_lock_finds_it_done(rows: Rows) -> None:
    rows.task("a")
    schedule_id, now = _create(rows, NewTrajectories(1)), utc_now()
    with transaction(rows.services.sessions) as first:
        assert tick(first, schedule_id, now) is not None
        with transaction(rows.services.sessions) as second:
            assert tick(second, schedule_id, now) is None
    assert _tick(rows, now) == []
    assert [run.outcome for run in _runs(rows)] == ["started"]


def test_missed_times_are_made_up_for_once(rows: Rows) -> None:
    rows.task("a")
    schedule_id = _create(rows, HOURLY)
    now = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    _due(rows, schedule_id, now - timedelta(hours=10, minutes=30))
    assert len(_tick(rows, now)) == 1
    assert _tick(rows, now) == []
    [run] = _runs(rows)
    assert (run.due_at, run.missed) == (datetime(2026, 3, 1, 2, tzinfo=UTC), 10)
    with transaction(rows.services.sessions) as session:
        schedule = session.get_one(Schedule, schedule_id)
        assert schedule.next_run_at == datetime(2026, 3, 1, 13, tzinfo=UTC)


def test_no_job_while_the_last_one_runs_and_the_skip_is_recorded(rows: Rows) -> None:
    rows.task("a")
    schedule_id, now = _create(rows, HOURLY), utc_now()
    [job_id] = _tick(rows, now + timedelta(hours=1))
    for hour, state in ((2, "queued"), (3, "running")):
        _end(rows, job_id, state)
        assert _tick(rows, now + timedelta(hours=hour)) == []
    reasons = [run.reason for run in _runs(rows)[1:]]
    assert reasons == [f"its last job {job_id} is still queued", f"its last job {job_id} is still running"]
    _end(rows, job_id, "failed")
    assert len(_tick(rows, now + timedelta(hours=4))) == 1
    with transaction(rows.services.sessions) as session:
        assert session.get_one(Schedule, schedule_id).last_job_id != job_id


def test_a_schedule_with_nothing_new_is_skipped_and_says_so(rows: Rows) -> None:
    rows.task("a")
    _create(rows, HOURLY)
    rows.version("a", passed=False)
    now = utc_now()
    assert _tick(rows, now + timedelta(hours=1)) == []
    reason = "nothing new to learn: bot has learned all of a that it may"
    assert re.fullmatch(rf"{reason}(; not counted: \d+ held out)?", _runs(rows)[0].reason)
    _send(rows, 20, "parcel")
    assert len(_tick(rows, now + timedelta(hours=2))) == 1


def test_by_the_clock_and_only_when_enough_is_new(rows: Rows) -> None:
    rows.task("a")
    rows.version("a", passed=False)
    schedule_id = _create(rows, Cron("0 * * * *", at_least=10))
    now = utc_now()
    assert [_tick(rows, now + timedelta(hours=hour)) for hour in (1, 2)] == [[], []]
    _send(rows, 8, "few")
    assert _tick(rows, now + timedelta(hours=3)) == []
    _send(rows, 80, "many")
    assert _tick(rows, now + timedelta(hours=3)) == [], "enough waits, and the time has not come"
    [job_id] = _tick(rows, now + timedelta(hours=4))
    *skipped, started = _runs(rows)
    assert [run.outcome for run in skipped] == ["skipped"] * 3
    assert skipped[2].reason.endswith(" of 10 new trajectories wait")
    assert (started.job_id, started.missed) == (job_id, 0)
    with transaction(rows.services.sessions) as session:
        assert when_of(session.get_one(Schedule, schedule_id)) == Cron("0 * * * *", at_least=10)


def test_what_forbids_a_job_is_asked_last_and_recorded(rows: Rows) -> None:
    rows.task("a")
    schedule_id, now = _create(rows, HOURLY), utc_now() + timedelta(hours=1)
    asked: list[str] = []

    def why_not(session: Session, schedule: Schedule) -> str | None:
        asked.append(schedule.name)
        return "the loop is paused"

    with transaction(rows.services.sessions) as session:
        assert tick(session, schedule_id, now, why_not) is None
        assert tick(session, schedule_id, now, why_not) is None
    assert asked == ["nightly"]
    assert [(run.outcome, run.reason) for run in _runs(rows)] == [("skipped", "the loop is paused")]


def test_after_n_new_trajectories_counts_what_may_be_learned(rows: Rows) -> None:
    rows.task("a")
    rows.version("a")
    with transaction(rows.services.sessions) as session:
        known = session.scalars(sa.select(sa.func.max(Trajectory.seq))).one()
    _create(rows, NewTrajectories(10))
    now = utc_now()
    _send(rows, 30, "failure", success=False)
    _send(rows, 30, "poor", reward=0.1)
    assert _tick(rows, now) == []
    sent = 0
    while True:
        sent += 1
        _send(rows, 1, f"good {sent}")
        with transaction(rows.services.sessions) as session:
            learnable = session.scalar(
                sa.select(sa.func.count()).where(
                    Trajectory.seq > known,
                    ~Trajectory.held_out,
                    Trajectory.success.is_(None),
                    Trajectory.reward.is_(None),
                )
            )
        started = _tick(rows, now)
        assert len(started) == (learnable == 10)
        if started:
            break
    # A job that fails is not started again at every tick, only once as many are new again.
    _end(rows, started[0], "failed")
    assert _tick(rows, now) == []
    _send(rows, 40, "more")
    assert len(_tick(rows, now)) == 1
    assert [run.outcome for run in _runs(rows)] == ["started", "started"]


def test_a_condition_that_holds_while_a_job_runs_is_one_skip(rows: Rows) -> None:
    rows.task("a")
    _create(rows, NewTrajectories(5))
    now = utc_now()
    assert len(_tick(rows, now)) == 1
    _send(rows, 20, "parcel")
    for _ in range(3):
        assert _tick(rows, now) == []
    assert [run.outcome for run in _runs(rows)] == ["started", "skipped"]


def test_after_idle_hours_only_when_something_is_new_and_nobody_asks(rows: Rows) -> None:
    rows.task("a")
    _create(rows, Idle(2.0))
    now = utc_now()
    assert _tick(rows, now + timedelta(hours=1.9)) == []
    with transaction(rows.services.sessions) as session:
        session.add(
            Exposure(completion_id="c1", project_id=rows.project_id, version_id=None, at=now + timedelta(hours=1))
        )
    assert _tick(rows, now + timedelta(hours=2.5)) == []
    [job_id] = _tick(rows, now + timedelta(hours=3.1))
    _end(rows, job_id, "succeeded")
    assert _tick(rows, now + timedelta(hours=9)) == []
    assert len(_runs(rows)) == 1


def test_after_idle_hours_with_enough(rows: Rows) -> None:
    rows.task("a")
    rows.version("a", passed=False)
    _create(rows, Idle(2.0, at_least=10))
    now = utc_now()
    _send(rows, 8, "few")
    assert _tick(rows, now + timedelta(hours=3)) == []
    _send(rows, 80, "many")
    assert _tick(rows, now + timedelta(hours=1)) == []
    assert len(_tick(rows, now + timedelta(hours=3))) == 1


def test_pausing_resuming_changing_and_deleting_with_history(rows: Rows) -> None:
    rows.task("a")
    schedule_id = _create(rows, HOURLY)
    sessions, project = rows.services.sessions, rows.project_id
    with transaction(sessions) as session:
        change_schedule(session, project, "nightly", Change(paused=True), actor="anna")
    late = utc_now() + timedelta(days=3)
    assert _tick(rows, late) == []
    _due(rows, schedule_id, utc_now() - timedelta(days=2))
    with transaction(sessions) as session:
        schedule = change_schedule(session, project, "nightly", Change(paused=False), actor="anna")
        assert schedule.next_run_at is not None
        assert schedule.next_run_at > utc_now()
    assert _tick(rows, utc_now()) == []
    with transaction(sessions) as session:
        change_schedule(session, project, "nightly", Change(when=Cron("0 3 * * *", "Europe/Berlin")), actor="ben")
        change_schedule(session, project, "nightly", Change(), actor="nobody")
        shown = next_runs(get_schedule(session, project, "nightly"), utc_now())
        assert len(shown) == 5
        assert shown == sorted(set(shown))
        delete_schedule(session, project, "nightly", actor="ben")
        changes = list_changes(session, session.get_one(Schedule, schedule_id))
    assert [(c.kind, c.actor) for c in changes] == [
        ("created", "test"),
        ("paused", "anna"),
        ("resumed", "anna"),
        ("changed", "ben"),
        ("deleted", "ben"),
    ]
    assert (changes[3].before["cron"], changes[3].after["cron"]) == ("0 * * * *", "0 3 * * *")
    with transaction(sessions) as session, pytest.raises(ScheduleNotFound):
        get_schedule(session, project, "nightly")
    _create(rows, HOURLY)


def test_names_are_unique_and_terms_checked(rows: Rows) -> None:
    rows.task("a")
    _create(rows, HOURLY)
    with pytest.raises(NameTaken):
        _create(rows, HOURLY)
    for when in (NewTrajectories(0), Idle(0.0), Idle(float("nan")), Cron("x")):
        with pytest.raises(InvalidSchedule):
            _create(rows, when, "other")


def test_no_job_beside_the_retry_of_its_last_one(rows: Rows) -> None:
    """A version that forgot is trained once more: until that has ended, the schedule's last job has not."""
    rows.task("a")
    with transaction(rows.services.sessions) as session:
        get_adapter(session, rows.project_id, "bot").retry_replay_share = 0.6
    _create(rows, HOURLY)
    now = utc_now()
    [job_id] = _tick(rows, now + timedelta(hours=1))
    version = rows.version("a", passed=False)
    _send(rows, 20, "parcel")
    forgotten = compare("b", new=False, baseline=[1.0], candidate=[0.0], terms=GateTerms(0.05))
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        job, trained = session.get_one(Job, job_id), session.get_one(Version, version.id)
        retry = retry_of(session, adapter, trained, job, [forgotten])
        assert retry is not None
        job.state = "succeeded"
    assert _tick(rows, now + timedelta(hours=2)) == []
    assert _runs(rows)[-1].reason == f"its last job {retry.id} is still queued"
    _end(rows, retry.id, "succeeded")
    assert len(_tick(rows, now + timedelta(hours=3))) == 1


def test_no_job_beside_the_one_that_began_anew_without_deleted_data(rows: Rows) -> None:
    rows.task("a", chats(40, session_id="s1"))
    _create(rows, HOURLY)
    _create(rows, HOURLY, "other")
    now = utc_now()
    first, second = _tick(rows, now + timedelta(hours=1))
    with transaction(rows.services.sessions) as session:
        snapshot = rows.snapshot(session, "a")
        session.get_one(Job, first).dataset_id = snapshots.record_dataset(session, snapshot).id
        victim = str(snapshot.items[0][0])
    with transaction(rows.services.sessions) as session:
        [anew] = delete_data(
            session, rows.project_id, DeletionSubject("trajectory", victim), "keep", actor="test", reason="why"
        ).started
        assert session.get_one(Job, first).state == "cancelled"
    assert _tick(rows, now + timedelta(hours=2)) == []
    assert [run.reason for run in _runs(rows)[-2:]] == [
        f"its last job {anew} is still queued",
        f"its last job {second} is still queued",
    ]


def test_a_withdrawn_champion_is_not_gone_on_from(rows: Rows) -> None:
    rows.task("a", [*chats(40), *chats(10, word="secret", session_id="s1")])
    version = rows.version("a")
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot", lock=True)
        promote(session, adapter, "champion", session.get_one(Version, version.id), actor="test", reason="")
    _create(rows, HOURLY)
    _send(rows, 20, "parcel")
    with transaction(rows.services.sessions) as session:
        delete_data(session, rows.project_id, DeletionSubject("session", "s1"), "withdraw", actor="test", reason="why")
    now = utc_now()
    assert _tick(rows, now + timedelta(hours=1)) == []
    [run] = _runs(rows)
    assert run.outcome == "skipped"
    assert run.reason.startswith("the champion can't be gone on from: bot@1 was withdrawn at ")


def _next(rows: Rows) -> datetime | None:
    with transaction(rows.services.sessions) as session:
        return session.scalars(sa.select(Schedule.next_run_at)).one()


def test_a_due_time_of_a_clock_that_was_set_back_is_the_next_one_again(rows: Rows) -> None:
    rows.task("a")
    now = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
    schedule_id = _create(rows, Cron("0 3 * * *"))
    coming = datetime(2026, 5, 5, 3, tzinfo=UTC)
    for due, late in ((coming, []), (coming + timedelta(days=1), ["nightly"]), (now, [])):
        _due(rows, schedule_id, due)
        with transaction(rows.services.sessions) as session:
            assert bring_back(session, now) == late
        assert _next(rows) == (coming if late else due)


def test_a_beat_that_is_a_moment_behind_does_not_run_a_due_time_again(rows: Rows) -> None:
    rows.task("a")
    due = datetime(2026, 5, 5, 3, tzinfo=UTC)
    schedule_id = _create(rows, Cron("0 3 * * *"))
    _due(rows, schedule_id, due)
    assert len(_tick(rows, due)) == 1
    with transaction(rows.services.sessions) as session:
        assert bring_back(session, due - timedelta(seconds=2)) == []


def test_what_is_dated_ahead_does_not_keep_an_idle_schedule_from_its_time(rows: Rows) -> None:
    rows.task("a")
    _create(rows, Idle(2.0))
    now = utc_now()
    with transaction(rows.services.sessions) as session:
        session.add(
            Exposure(completion_id="c1", project_id=rows.project_id, version_id=None, at=now + timedelta(days=1))
        )
        newest = session.scalars(sa.select(Trajectory).order_by(Trajectory.seq.desc()).limit(1)).one()
        newest.created_at = now + timedelta(days=1)
    assert _tick(rows, now + timedelta(hours=1)) == []
    assert len(_tick(rows, now + timedelta(hours=3))) == 1
