"""Freezing suites and datasets while others delete, import and freeze the same rows."""

import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa

from registry.database import transaction
from registry.datasets import snapshots, suites
from registry.datasets.suites import freeze_suite, suite_trajectories
from registry.models import Dataset, Suite
from registry.tasks import get_task
from registry.trajectories.imports import import_batch, read_item
from tests.registry.conftest import TOKENS, Rows, chats
from tests.registry.deleting import delete, promote_version
from tests.registry.stored_versions import make_stored_version, trajectories


def freeze(rows: Rows, task: str = "a") -> tuple[int, list[uuid.UUID]]:
    with transaction(rows.services.sessions) as session:
        suite = freeze_suite(session, get_task(session, rows.project_id, task))
        assert suite is not None
        assert suite.items == len(suite_trajectories(session, suite.id))
        return suite.number, [row.id for row in suite_trajectories(session, suite.id)]


def between_choice_and_row(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Does `act` once, after the first items were chosen and before any row of a suite is written."""
    done = Event()
    real = suites.one_of

    def choose(column: Any, ids: Any) -> Any:
        if not done.is_set():
            done.set()
            act()
        return real(column, ids)

    monkeypatch.setattr(suites, "one_of", choose)


def test_a_deletion_while_a_suite_is_frozen_is_frozen_without(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    rows.task("a", chats(60))
    held_out = trajectories(rows, held_out=True)
    gone = held_out[0].id
    between_choice_and_row(monkeypatch, lambda: delete(rows, "trajectory", str(gone)))
    number, items = freeze(rows)
    assert (number, len(items)) == (1, len(held_out) - 1)
    assert gone not in items


def test_the_last_item_deleted_while_it_is_frozen_leaves_no_suite(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    rows.task("a", chats(60, session_id="s"))
    between_choice_and_row(monkeypatch, lambda: delete(rows, "session", "s"))
    with transaction(rows.services.sessions) as session:
        assert freeze_suite(session, get_task(session, rows.project_id, "a")) is None


def test_an_import_while_a_suite_is_frozen_waits_for_nothing(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    rows.task("a", chats(60))

    def send() -> None:
        with transaction(rows.services.sessions) as session:
            session.execute(sa.text("set local lock_timeout = '5s'"))
            sent = [read_item(n, item) for n, item in enumerate(chats(30, word="late"))]
            import_batch(session, rows.project_id, sent, default_task="a", tokens=TOKENS)

    between_choice_and_row(monkeypatch, send)
    assert freeze(rows)[0] == 1
    assert freeze(rows)[0] == 2


@pytest.mark.parametrize("policy", ["keep", "retrain", "withdraw"])
def test_a_deletion_waits_for_the_suite_that_is_being_frozen_and_not_the_reverse(rows: Rows, policy: Any) -> None:
    """Either way round, whatever else the deletion writes: no deadlock, no broken reference."""
    rows.task("a", chats(60))
    promote_version(rows, make_stored_version(rows, "a"))
    victim = next(row.id for row in trajectories(rows, held_out=True))
    late = [read_item(n, item) for n, item in enumerate(chats(30, word="late"))]
    with transaction(rows.services.sessions) as session:
        import_batch(session, rows.project_id, late, default_task="a", tokens=TOKENS)
    with ThreadPoolExecutor(1) as pool:
        with transaction(rows.services.sessions) as session:
            session.execute(sa.text("set local lock_timeout = '20s'"))
            suite = freeze_suite(session, get_task(session, rows.project_id, "a"))
            assert suite is not None
            assert suite.number == 2
            deleting: Future[object] = pool.submit(delete, rows, "trajectory", str(victim), policy)
            with pytest.raises(TimeoutError):
                deleting.result(timeout=1.0)
        deleting.result(timeout=30)
    with transaction(rows.services.sessions) as session:
        frozen = session.scalars(sa.select(Suite).where(Suite.number == 2)).one()
        assert len(suite_trajectories(session, frozen.id)) == frozen.items - 1


def test_ten_freezes_and_ten_deletions_at_once(rows: Rows) -> None:
    rows.task("a", chats(120))
    victims = [row.id for row in trajectories(rows, held_out=True)][:10]
    with ThreadPoolExecutor(8) as pool:
        pending = [
            pool.submit(act)
            for victim in victims
            for act in (lambda: freeze(rows), lambda v=victim: delete(rows, "trajectory", str(v)))
        ]
        for each in pending:
            each.result(timeout=60)
    with transaction(rows.services.sessions) as session:
        numbers = session.scalars(sa.select(Suite.number).order_by(Suite.number)).all()
    assert numbers == list(range(1, len(numbers) + 1))
    assert not set(victims) & set(freeze(rows)[1])


def test_two_jobs_record_one_dataset_at_once(rows: Rows) -> None:
    rows.task("a", chats(60))
    with ThreadPoolExecutor(1) as pool:
        with transaction(rows.services.sessions) as session:
            first = snapshots.record_dataset(session, rows.snapshot(session, "a")).id
            second = pool.submit(_record, rows)
            with pytest.raises(TimeoutError):
                second.result(timeout=1.0)
        assert second.result(timeout=30) == first
    with transaction(rows.services.sessions) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Dataset)) == 1


def _record(rows: Rows) -> uuid.UUID:
    with transaction(rows.services.sessions) as session:
        return snapshots.record_dataset(session, rows.snapshot(session, "a")).id
