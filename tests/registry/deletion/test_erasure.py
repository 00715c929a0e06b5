"""Bytes of deleted data: gone whatever other erasures and jobs do at the same time."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.datasets import snapshots
from registry.datasets.snapshots import Snapshot
from registry.deletion import deletions
from registry.deletion.deletions import DeletionPolicy
from registry.deletion.erasure import blank_missing_answers, unfinished_erasures
from registry.errors import PolicyKeepsWords, SnapshotOutdated
from registry.models import Version
from registry.object_store import ObjectStore
from registry.versions.records import get_version
from registry.versions.state import states_of
from tests.registry.conftest import Rows, chats
from tests.registry.deleting import SECRET, delete, finish, queue_training, with_secrets
from tests.registry.stored_versions import elsewhere, make_stored_version, trajectories, whole_store


def _two_of_a_dataset(rows: Rows) -> list[str]:
    with_secrets(rows)
    make_stored_version(rows, "a")
    return [str(row.id) for row in trajectories(rows, held_out=False) if row.session_id == "s1"][:2]


def _unfinished(rows: Rows) -> list[Any]:
    with transaction(rows.services.sessions) as session:
        return unfinished_erasures(session)


def _snapshot(rows: Rows) -> Snapshot:
    with transaction(rows.services.sessions) as session:
        return rows.snapshot(session, "a")


def _between_read_and_write(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Call `act` once, when an erasure has read a dataset and not yet written it."""
    read, done = ObjectStore.get, []

    def get(self: ObjectStore, key: str) -> bytes:
        data = read(self, key)
        if "/datasets/" in key and not done:
            done.append(key)
            act()
        return data

    monkeypatch.setattr(ObjectStore, "get", get)


def test_two_erasures_of_a_dataset_take_turns(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = _two_of_a_dataset(rows)
    first, others = delete(rows, "trajectory", ids[0]), []

    def delete_another() -> None:
        others.append(delete(rows, "trajectory", ids[1]))
        assert not finish(rows, others[0]), "the first one is at work"

    _between_read_and_write(monkeypatch, delete_another)
    assert finish(rows, first)
    [second] = others
    assert _unfinished(rows) == [second.deletion.id]
    assert finish(rows, second)
    assert _unfinished(rows) == []
    stored = whole_store(rows)
    assert [id_ in stored for id_ in ids] == [False, False]


def test_another_project_does_not_wait(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    first = delete(rows, "trajectory", _two_of_a_dataset(rows)[0])
    other = elsewhere(rows)
    with_secrets(other)
    theirs, finished = delete(other, "session", "s1"), []
    _between_read_and_write(monkeypatch, lambda: finished.append(finish(other, theirs)))
    assert finish(rows, first)
    assert finished == [True]


def test_an_erasure_that_lost_its_turn_is_done_again(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection breaks, another erasure has the turn, and it writes what it had read before."""
    ids = _two_of_a_dataset(rows)
    first = delete(rows, "trajectory", ids[0])

    def lose() -> None:
        with transaction(rows.services.sessions) as session:
            holders = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted"
            assert session.scalars(sa.text(holders)).all() == [True]
        assert finish(rows, delete(rows, "trajectory", ids[1]))

    _between_read_and_write(monkeypatch, lose)
    with pytest.raises(OperationalError):
        finish(rows, first)
    assert ids[1] in whole_store(rows), "or nothing was lost, and this tests nothing"
    assert _unfinished(rows) == [first.deletion.id]
    assert finish(rows, first)
    stored = whole_store(rows)
    assert [id_ in stored for id_ in ids] == [False, False]


def test_a_job_that_begins_while_the_data_goes_is_waited_for(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    with_secrets(rows)
    job_id = queue_training(rows)
    read: list[Snapshot] = []

    def begin(*arguments: Any) -> None:
        with transaction(rows.services.sessions) as session:
            assert jobs.claim(session, job_id, "w", 60) == 1
        read.append(_snapshot(rows))
        blank_missing_answers(*arguments)

    monkeypatch.setattr(deletions, "blank_missing_answers", begin)
    deleted = delete(rows, "session", "s1")
    [snapshot] = read
    assert SECRET.encode() in snapshot.jsonl, "it read before the deletion was committed"
    assert not finish(rows, deleted)
    rows.services.store.put(snapshot.object_key, snapshot.jsonl)
    with pytest.raises(SnapshotOutdated), transaction(rows.services.sessions) as session:
        snapshots.record_dataset(session, snapshot)
    assert not finish(rows, deleted)
    with transaction(rows.services.sessions) as session:
        assert jobs.finish(session, job_id, 1, "failed", error="x")
    assert finish(rows, deleted)
    assert SECRET not in whole_store(rows)


def test_jobs_that_begin_after_the_first_pass_are_not_waited_for(rows: Rows) -> None:
    with_secrets(rows)
    make_stored_version(rows, "a")
    running, queued = queue_training(rows), queue_training(rows)
    with transaction(rows.services.sessions) as session:
        jobs.claim(session, running, "w", 60)
    deleted = delete(rows, "session", "s1")
    assert not finish(rows, deleted)
    with transaction(rows.services.sessions) as session:
        assert jobs.claim(session, queued, "w", 60) == 1
        assert jobs.finish(session, running, 1, "succeeded", result={})
    assert finish(rows, deleted)


def test_a_queue_that_nobody_works_on_holds_nothing_up(rows: Rows) -> None:
    with_secrets(rows)
    queue_training(rows)
    assert finish(rows, delete(rows, "session", "s1"))


def test_versions_that_appear_late_are_withdrawn_with_what_goes_on_from_them(rows: Rows) -> None:
    with_secrets(rows)
    learned = make_stored_version(rows, "a")
    deleted = delete(rows, "session", "s1", "withdraw")
    late = make_stored_version(rows, "a", parent=learned)
    assert json.dumps(deleted.deletion.affected["versions"]).count("number") == 1
    assert finish(rows, deleted)
    with transaction(rows.services.sessions) as session:
        assert get_version(session, session.get_one(Version, late.id).adapter, 2).parent_id == learned.id
        states = states_of(session, [learned.id, late.id])
        assert [states[id_].withdrawn_at is not None for id_ in (learned.id, late.id)] == [True, True]


def _remember(rows: Rows, artifact: str, *ids: str, sources: Sequence[str] = ()) -> str:
    """Put an artifact's experience into the store, as `memgen.experience.pool` writes it; its folder.

    Args:
        sources: ids of trajectories that an insight was distilled from.
    """
    entries = [{"entry_id": id_, "task": "a", "prompt": SECRET, "answer": "yes", "reward": 1.0} for id_ in ids]
    rule = {"entry_id": "rule", "task": "a", "text": SECRET, "prompts": [SECRET], "sources": list(sources)}
    stored = json.dumps({"format": 1, "trajectories": entries, "insights": [rule], "states": None})
    rows.services.store.put(f"{artifact}/experience/entries.json", stored.encode())
    rows.services.store.put(f"{artifact}/experience/manifest.json", b"{}")
    return f"{artifact}/experience/"


def _cued(rows: Rows) -> None:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, "bot")
        adapter.memory = {**adapter.memory, "cue_tokens": 100}


def test_experience_that_holds_the_data_goes_with_the_versions_and_no_other(rows: Rows) -> None:
    _cued(rows)
    with_secrets(rows)
    rows.task("b", chats(40, word="other"))
    learned, other = make_stored_version(rows, "a"), make_stored_version(rows, "b")
    child = make_stored_version(rows, "b", parent=learned)
    gone = [str(row.id) for row in trajectories(rows, held_out=False) if row.session_id == "s1"]
    doomed = [_remember(rows, learned.artifact_key, "x", gone[0])]
    doomed.append(_remember(rows, child.artifact_key, "x", sources=["y", gone[0]]))
    # A job that could not register its version any more has left this.
    doomed.append(_remember(rows, f"projects/{rows.project_id}/artifacts/{64 * 'f'}", gone[1]))
    kept = _remember(rows, other.artifact_key, "x", "y")

    refused: tuple[DeletionPolicy, ...] = ("keep", "retrain")
    for policy in refused:
        with pytest.raises(PolicyKeepsWords, match="bot@1, bot@3: versions of an adapter .* use policy 'with"):
            delete(rows, "session", "s1", policy)
    assert all(id_ in whole_store(rows) for id_ in gone[:2])
    assert finish(rows, delete(rows, "session", "s1", "withdraw"))
    stored = {found.key for found in rows.services.store.list(f"projects/{rows.project_id}/artifacts/")}
    assert not any(key.startswith(folder) for key in stored for folder in doomed)
    assert {f"{kept}entries.json", f"{kept}manifest.json"} <= stored
    assert f"{learned.artifact_key}/memory.safetensors" in stored
    assert not any(id_ in whole_store(rows) for id_ in gone)


def test_data_that_no_version_remembers_may_be_deleted_by_any_policy(rows: Rows) -> None:
    _cued(rows)
    with_secrets(rows)
    rows.task("b", chats(40, word="other"))
    make_stored_version(rows, "b")
    assert finish(rows, delete(rows, "session", "s1", "keep"))
