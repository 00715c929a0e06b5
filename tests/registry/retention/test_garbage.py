"""Garbage is old and unnamed, and nothing else is removed."""

import hashlib
import uuid
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from registry import jobs
from registry.clock import utc_now
from registry.database import transaction
from registry.job_requests import TrainWeaver
from registry.models import Dataset
from registry.object_store import StoredObject
from registry.retention.garbage import collect_garbage, find_garbage
from tests.registry.conftest import Rows
from tests.registry.stored_versions import make_stored_version, stored_keys


def _garbage(rows: Rows, act: Any, *, later: timedelta, grace: timedelta = timedelta(hours=1)) -> set[str]:
    services = rows.services
    found: list[StoredObject] = act(
        services.sessions, services.store, rows.project_id, now=utc_now() + later, grace=grace
    )
    return {row.key for row in found}


def test_garbage_is_old_and_unnamed_and_nothing_else(rows: Rows) -> None:
    rows.task("a")
    version, store = make_stored_version(rows, "a"), rows.services.store
    project = f"projects/{rows.project_id}"
    orphans = {f"{project}/datasets/x.jsonl", f"{project}/artifacts/{'0' * 64}/memory.json"}
    for key in orphans:
        store.put(key, b"x")
    store.put(f"{project}/notes.txt", b"not ours to judge")
    store.put(f"projects/{uuid.uuid4()}/datasets/x.jsonl", b"another project's")
    with transaction(rows.services.sessions) as session:
        live = jobs.create_job(session, rows.project_id, TrainWeaver("a")).id
    store.put(f"jobs/{live}/checkpoint.safetensors", b"x")
    store.put(f"jobs/{uuid.uuid4()}/checkpoint.safetensors", b"nobody's job")
    expected = orphans | {f"jobs/{version.job_id}/checkpoint.safetensors"}

    assert _garbage(rows, find_garbage, later=timedelta(minutes=59)) == set(), "younger than the grace period"
    before = stored_keys(rows, "")
    assert _garbage(rows, find_garbage, later=timedelta(hours=2)) == expected
    assert stored_keys(rows, "") == before
    assert _garbage(rows, collect_garbage, later=timedelta(hours=2)) == expected
    assert set(before) - set(stored_keys(rows, "")) == expected
    assert _garbage(rows, collect_garbage, later=timedelta(hours=2)) == set()


def test_an_upload_that_gets_its_row_while_garbage_is_collected_stays(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are old, and the row comes between the finding and the removal."""
    task, store = rows.task("a"), rows.services.store
    key = f"projects/{rows.project_id}/datasets/late.jsonl"
    store.put(key, b"x")
    whole_stat = store.stat

    def recorded_meanwhile(name: str) -> StoredObject:
        with transaction(rows.services.sessions) as session:
            task_id = session.execute(sa.text("select id from tasks where name = :name"), {"name": task}).scalar_one()
            digest = hashlib.sha256(b"x").hexdigest()
            session.add(
                Dataset(project_id=rows.project_id, task_id=task_id, content_hash=digest, manifest={}, object_key=name)
            )
        return whole_stat(name)

    monkeypatch.setattr(store, "stat", recorded_meanwhile)
    assert _garbage(rows, find_garbage, later=timedelta(hours=2)) == {key}
    assert _garbage(rows, collect_garbage, later=timedelta(hours=2)) == set()
    assert stored_keys(rows, key) == [key]
