"""Retention keeps the newest versions and every held one, and removes the bytes of the others, not their rows."""

from typing import Any

import pytest
import sqlalchemy as sa

from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import VersionNotServable
from registry.models import Adapter, Version, VersionChange
from registry.retention.archiving import archive
from registry.retention.policy import keep_last, plan_retention, purge, set_policy
from registry.serving.aliases import roll_back
from registry.serving.resolution import resolve
from registry.versions.records import get_version
from registry.versions.tags import tag
from tests.registry.conftest import Rows
from tests.registry.deleting import promote_version
from tests.registry.stored_versions import make_stored_version, stored_keys


def _adapter(session: Any, rows: Rows) -> Adapter:
    return get_adapter(session, rows.project_id, "bot", lock=True)


def _archive(rows: Rows, version: Version) -> None:
    with transaction(rows.services.sessions) as session:
        adapter = _adapter(session, rows)
        row = get_version(session, adapter, version.number)
        archive(session, adapter, row, actor="anna", reason="old")


def _plan(rows: Rows, keep: int) -> tuple[dict[int, tuple[str, ...]], list[int]]:
    with transaction(rows.services.sessions) as session:
        plan = plan_retention(session, _adapter(session, rows), keep)
        return {row.number: reasons for row, reasons in plan.kept}, [row.number for row in plan.purged]


def test_retention_keeps_the_newest_and_what_is_needed(rows: Rows) -> None:
    rows.task("a")
    lone, parent = rows.version("a", passed=False), rows.version("a")
    child = rows.version("a", parent=parent)
    other, tagged, served, _ = (rows.version("a") for _ in range(4))
    for version in (other, child, served):
        promote_version(rows, version)
    with transaction(rows.services.sessions) as session:
        tag(session, session.get_one(Version, tagged.id), "release", actor="anna")
    kept, gone = _plan(rows, 1)
    assert kept == {
        2: ("version 3 was trained from it",),
        3: ("a rollback of champion goes back to it",),
        5: ("it is tagged release",),
        6: ("alias champion points at it",),
        7: ("it is one of the newest 1",),
    }
    assert gone == [lone.number, other.number]
    assert _plan(rows, 7)[1] == []
    with transaction(rows.services.sessions) as session:
        adapter = _adapter(session, rows)
        roll_back(session, adapter, "champion", actor="test", reason="")
    assert _plan(rows, 1)[1] == [1, 6]


def test_retention_keeps_what_a_rollback_would_go_to(rows: Rows) -> None:
    """Past the one before, which is archived."""
    rows.task("a")
    versions = [rows.version("a") for _ in range(3)]
    for version in versions:
        promote_version(rows, version)
    _archive(rows, versions[1])
    kept, gone = _plan(rows, 1)
    assert (kept[1], gone) == (("a rollback of champion goes back to it",), [2])


def test_purging_removes_bytes_and_keeps_rows(rows: Rows) -> None:
    rows.task("a")
    first = make_stored_version(rows, "a")
    twin = make_stored_version(rows, "a", text="equal bytes")
    same = make_stored_version(rows, "a", text="equal bytes")
    assert twin.artifact_key == same.artifact_key
    with transaction(rows.services.sessions) as session:
        adapter = _adapter(session, rows)
        set_policy(session, adapter, 1, actor="anna")
        assert keep_last(session, adapter, default=20) == 1
        plan = plan_retention(session, adapter, 1)
        assert [row.number for row in plan.purged] == [1, 2]
        folders = purge(session, adapter, plan.purged, actor="anna", reason="retention")
    assert folders == [first.artifact_key], "the bytes of 2 are those of 3, which stays"
    for folder in folders:
        rows.services.store.delete_folder(folder)
    assert not stored_keys(rows, first.artifact_key)
    assert stored_keys(rows, same.artifact_key)
    with transaction(rows.services.sessions) as session:
        assert get_version(session, _adapter(session, rows), 1).artifact_hash == first.artifact_hash
        assert session.scalars(sa.select(VersionChange.kind)).all() == ["purged", "purged"]
        with pytest.raises(VersionNotServable, match="were removed by retention"):
            resolve(session, rows.project_id, "bot@1")
    assert _plan(rows, 1) == ({3: ("it is one of the newest 1",)}, [])
