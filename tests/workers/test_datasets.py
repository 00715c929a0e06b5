"""The dataset of a training beside deletions that have nothing to do with it."""

import json
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from registry import jobs
from registry.adapters import create_adapter
from registry.database import transaction
from registry.datasets import snapshots
from registry.datasets.snapshots import Snapshot
from registry.deletion.deletions import Deleted, delete_data
from registry.deletion.erasure import finish_erasure
from registry.deletion.scope import DeletionSubject
from registry.job_requests import TrainWeaver
from registry.json_text import jsonl_lines
from registry.models import Dataset, Trajectory
from registry.object_store import ObjectStore
from registry.tasks import create_task, get_task
from registry.trajectories.imports import TokenLimit, import_batch, read_item
from registry.wiring import Services
from tests.workers.conftest import answers
from workers.datasets import dataset_of
from workers.runner import Running

TOKENS = TokenLimit(count=lambda messages, tools: 10, max_tokens=1000)


@pytest.fixture
def running(services: Services, project_id: uuid.UUID) -> Running:
    """A training that was claimed, of a task with something to learn."""
    with transaction(services.sessions) as session:
        create_task(session, project_id, "yes", grader={"kind": "exact"}, holdout_share=0.3)
        sent = [read_item(n, item) for n, item in enumerate(answers("yes"))]
        import_batch(session, project_id, sent, default_task="yes", tokens=TOKENS)
        adapter = create_adapter(session, project_id, name="bot", base_model="tiny", base_revision="1")
        job_id = jobs.create_job(session, project_id, TrainWeaver("yes"), adapter).id
        assert jobs.claim(session, job_id, "w", 60) == 1
    return Running(services, job_id, 1, threading.Event())


@pytest.fixture
def take(project_id: uuid.UUID) -> Callable[[Session], Snapshot]:
    def found(session: Session) -> Snapshot:
        task = get_task(session, project_id, "yes")
        return snapshots.snapshot(session, project_id, task, earlier_tasks=[], replay_share=0.0, min_reward=0.5, seed=0)

    return found


def _delete_one(services: Services, project_id: uuid.UUID) -> Deleted:
    with transaction(services.sessions) as session:
        query = sa.select(Trajectory.id).where(Trajectory.held_out.is_(False)).order_by(Trajectory.seq).limit(1)
        victim = str(session.scalars(query).one())
        return delete_data(session, project_id, DeletionSubject("trajectory", victim), "keep", actor="test", reason="")


def _when_stored(monkeypatch: pytest.MonkeyPatch, times: int, act: Callable[[], object]) -> list[str]:
    """Call `act` right after each of the first puts. Returns the keys that were put, as they come."""
    put, keys = ObjectStore.put, list[str]()

    def put_and_act(self: ObjectStore, key: str, data: bytes) -> None:
        put(self, key, data)
        keys.append(key)
        if len(keys) <= times:
            act()

    monkeypatch.setattr(ObjectStore, "put", put_and_act)
    return keys


def _stored(services: Services, project_id: uuid.UUID) -> list[str]:
    return [found.key for found in services.store.list(f"projects/{project_id}/datasets/")]


def _warnings(running: Running) -> list[str]:
    with transaction(running.services.sessions) as session:
        events = jobs.list_events(session, running.job_id, after=0, limit=99)
    return [event.message for event in events if event.level == "warning"]


def test_a_deletion_before_the_row_has_it_made_anew(
    running: Running, take: Any, project_id: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = running.services
    keys = _when_stored(monkeypatch, 1, lambda: _delete_one(services, project_id))
    dataset = dataset_of(running, take)
    assert len(keys) == 2
    assert _stored(services, project_id) == [dataset.object_key] == keys[1:]
    [told] = _warnings(running)
    assert told.startswith("the dataset is made anew: 1 of the ")
    with transaction(services.sessions) as session:
        there = {str(id_) for id_ in session.scalars(sa.select(Trajectory.id))}
    assert {json.loads(line)["id"] for line in services.store.get(dataset.object_key).splitlines()} <= there
    assert dataset_of(running, take).id == dataset.id
    assert len(keys) == 2, "the job is bound to it"


def test_deletions_one_after_the_other_wait_for_it(
    running: Running, take: Any, project_id: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's trajectories are deleted one by one while the training begins: it must not fail for that."""
    services, waited = running.services, list[str]()

    def delete() -> None:
        try:
            with transaction(services.sessions) as session:
                session.execute(sa.text("SET LOCAL lock_timeout = '100ms'"))
                victim = session.scalars(sa.select(Trajectory.id).where(Trajectory.held_out.is_(False)).limit(1)).one()
                subject = DeletionSubject("trajectory", str(victim))
                delete_data(session, project_id, subject, "keep", actor="test", reason="")
        except OperationalError as error:
            waited.append(type(error.orig).__name__)

    keys = _when_stored(monkeypatch, 99, delete)
    dataset = dataset_of(running, take)
    assert waited == ["LockNotAvailable"]
    assert len(keys) == 3
    assert _stored(services, project_id) == [dataset.object_key] == keys[2:]
    assert [message[:27] for message in _warnings(running)] == ["the dataset is made anew: 1"] * 2
    with transaction(services.sessions) as session:
        there = {str(id_) for id_ in session.scalars(sa.select(Trajectory.id))}
    assert {json.loads(line)["id"] for line in jsonl_lines(services.store.get(dataset.object_key))} <= there
    assert dataset_of(running, take).id == dataset.id


def test_the_file_of_an_equal_dataset_is_not_written_again(
    running: Running, take: Any, project_id: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines may have been dropped since; another job may read it."""
    services = running.services
    with transaction(services.sessions) as session:
        snapshot = take(session)
    services.store.put(snapshot.object_key, snapshot.jsonl)
    with transaction(services.sessions) as session:
        equal = snapshots.record_dataset(session, snapshot)
    find, deleted = snapshots.find_dataset, list[Deleted]()

    def find_and_delete(session: Session, snapshot: Snapshot) -> Dataset | None:
        found = find(session, snapshot)
        if not deleted:
            deleted.append(_delete_one(services, project_id))
            assert not finish_erasure(services.sessions, services.store, deleted[0].deletion.id), "the job runs"
        return found

    monkeypatch.setattr(snapshots, "find_dataset", find_and_delete)
    dataset = dataset_of(running, take)
    assert dataset.id != equal.id
    gone = deleted[0].deletion.trajectories[0]["id"]
    assert set(_stored(services, project_id)) == {equal.object_key, dataset.object_key}
    assert all(gone not in services.store.get(key).decode() for key in (equal.object_key, dataset.object_key))
