"""The beat's tick as a worker runs it: jobs sent, one schedule's fault kept from the others, deletions finished."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from registry.adapters import create_adapter, get_adapter
from registry.clock import utc_now
from registry.database import transaction
from registry.deletion.deletions import delete_data
from registry.deletion.erasure import unfinished_erasures
from registry.deletion.retraining import Chain
from registry.deletion.scope import DeletionSubject
from registry.models import Job, Project, Schedule, StoredResponse, Trajectory
from registry.schedules.cron import Cron
from registry.schedules.schedules import TrainingRequest, create_schedule
from registry.serving.stored_responses import ResponseOwner, store_response
from registry.settings import Settings
from registry.tasks import create_task, get_task
from registry.trajectories.imports import TokenLimit, import_batch, read_item
from registry.trajectories.records import TrajectoryFilter, list_trajectories
from registry.wiring import Services
from workers import beat
from workers.beat import tick_all
from workers.queue import DEFAULT_QUEUE, TICK, make_queue

TOKENS = TokenLimit(count=lambda messages, tools: 10, max_tokens=1000)


@pytest.fixture
def scheduled(services: Services, project_id: uuid.UUID) -> list[uuid.UUID]:
    """Two schedules that were due a minute ago, of one adapter and task with something to learn."""
    with transaction(services.sessions) as session:
        create_task(session, project_id, "a", grader={"kind": "exact"}, holdout_share=0.3)
        items = [
            {
                "messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}],
                "session_id": "s",
            }
            for n in range(20)
        ]
        sent = [read_item(n, item) for n, item in enumerate(items)]
        import_batch(session, project_id, sent, default_task="a", tokens=TOKENS)
        create_adapter(session, project_id, name="bot", base_model="tiny", base_revision="1")
        made = [
            create_schedule(
                session,
                project_id,
                name,
                adapter=get_adapter(session, project_id, "bot"),
                task=get_task(session, project_id, "a"),
                when=Cron("* * * * *"),
                request=TrainingRequest({}),
                actor="test",
            ).id
            for name in ("first", "second")
        ]
        session.execute(sa.update(Schedule).values(next_run_at=utc_now() - timedelta(minutes=1)))
        return made


def test_what_is_due_is_created_and_sent_once(services: Services, scheduled: list[uuid.UUID]) -> None:
    sent: list[uuid.UUID] = []
    created = tick_all(services, sent.append)
    assert sent == created
    assert len(created) == 2
    assert tick_all(services, sent.append) == []
    with transaction(services.sessions) as session:
        assert set(session.scalars(sa.select(Job.id))) == set(created)


def test_one_schedules_fault_does_not_keep_the_others(services: Services, scheduled: list[uuid.UUID]) -> None:
    with transaction(services.sessions) as session:
        session.execute(sa.update(Schedule).where(Schedule.id == scheduled[0]).values(cron="0 0 30 2 *"))
    assert len(tick_all(services, lambda _: None)) == 1


def test_a_deletion_that_could_not_finish_is_finished(
    services: Services, project_id: uuid.UUID, scheduled: list[uuid.UUID]
) -> None:
    with transaction(services.sessions) as session:
        delete_data(session, project_id, DeletionSubject("session", "s"), "keep", actor="test", reason="")
    tick_all(services, lambda _: None)
    with transaction(services.sessions) as session:
        assert unfinished_erasures(session) == []


def test_beat_sends_the_tick(settings: Settings) -> None:
    with make_queue(settings) as queue:
        entry = queue.conf.beat_schedule["tick"]
    assert (entry["task"], entry["schedule"]) == (TICK, settings.tick_interval_seconds)
    assert entry["options"]["queue"] == DEFAULT_QUEUE


def test_a_retraining_that_fails_does_not_keep_deletions(
    services: Services, project_id: uuid.UUID, scheduled: list[uuid.UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction(services.sessions) as session:
        deleted = delete_data(
            session, project_id, DeletionSubject("session", "s"), "keep", actor="test", reason=""
        ).deletion.id
    asked: list[Chain] = []

    def fail(session: Session, chain: Chain) -> list[uuid.UUID]:
        asked.append(chain)
        raise RuntimeError("a row that nobody expected")

    monkeypatch.setattr(beat, "chains_to_advance", lambda session: [(deleted, 0), (deleted, 1)])
    monkeypatch.setattr(beat, "advance_chain", fail)
    tick_all(services, lambda _: None)
    assert asked == [(deleted, 0), (deleted, 1)]
    with transaction(services.sessions) as session:
        assert unfinished_erasures(session) == []


def test_one_deletions_fault_does_not_keep_the_others(
    services: Services, project_id: uuid.UUID, scheduled: list[uuid.UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction(services.sessions) as session:
        ids = session.scalars(sa.select(Trajectory.id).order_by(Trajectory.seq).limit(2)).all()
        first, second = (
            delete_data(
                session, project_id, DeletionSubject("trajectory", str(id_)), "keep", actor="test", reason=""
            ).deletion.id
            for id_ in ids
        )
    finish = beat.finish_erasure

    def fail_once(sessions: Any, store: Any, deletion_id: uuid.UUID) -> bool:
        if deletion_id == first:
            raise ValueError("a line that is no JSON")
        return finish(sessions, store, deletion_id)

    monkeypatch.setattr(beat, "finish_erasure", fail_once)
    tick_all(services, lambda _: None)
    with transaction(services.sessions) as session:
        assert unfinished_erasures(session) == [first] != [second]


def test_a_tick_removes_what_killed_processes_left(services: Services, settings: Settings) -> None:
    dead = settings.scratch_dir / "1-dead"
    dead.mkdir(parents=True)
    (dead / "data").write_text("secret")
    dead.with_name("1-dead.lock").touch()
    own = services.scratch.folder / "data"
    assert not dead.exists(), "also whoever begins"
    dead.mkdir()
    dead.with_name("1-dead.lock").touch()
    own.touch()
    assert tick_all(services, lambda job_id: None) == []
    assert not dead.exists()
    assert own.exists()


def test_expired_responses_go_with_the_tick(services: Services, project_id: uuid.UUID) -> None:
    for name, days in (("over", -1), ("kept", 1)):
        reply = {"id": name, "previous_response_id": None, "output": []}
        with transaction(services.sessions) as session:
            store_response(session, project_id, reply, [], ResponseOwner(), timedelta(days=days))
    tick_all(services, lambda job_id: None)
    with transaction(services.sessions) as session:
        assert session.scalars(sa.select(StoredResponse.id)).all() == ["kept"]


def test_new_trajectories_can_be_searched_after_a_tick(
    services: Services, project_id: uuid.UUID, scheduled: list[uuid.UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction(services.sessions) as session:
        stranger = Project(name="elsewhere")
        session.add(stranger)
        session.flush()
        create_task(session, stranger.id, "a", grader={"kind": "exact"}, holdout_share=0.3)
        item = {"messages": [{"role": "user", "content": "q7"}, {"role": "assistant", "content": "a"}]}
        import_batch(session, stranger.id, [read_item(1, item)], default_task="a", tokens=TOKENS)
    index = beat.index_words

    def fail_here(session: Session, project: uuid.UUID) -> int:
        if project == project_id:
            raise RuntimeError("a row that nobody expected")
        return index(session, project)

    def found(project: uuid.UUID) -> int:
        with transaction(services.sessions) as session:
            return len(list_trajectories(session, project, TrajectoryFilter(text="q7")))

    monkeypatch.setattr(beat, "index_words", fail_here)
    tick_all(services, lambda _: None)
    assert (found(project_id), found(stranger.id)) == (0, 1), "one project's fault does not keep the others"
    monkeypatch.setattr(beat, "index_words", index)
    tick_all(services, lambda _: None)
    assert (found(project_id), found(stranger.id)) == (1, 1)
