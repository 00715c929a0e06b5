"""Archiving hides a version, and never one that something holds."""

from typing import Any

import pytest

from registry import jobs
from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import VersionNeeded, VersionNotServable
from registry.job_requests import TrainWeaver
from registry.models import Adapter, Version
from registry.retention.archiving import archive, unarchive
from registry.serving.resolution import resolve
from registry.versions.records import get_version
from registry.versions.tags import version_changes
from tests.registry.conftest import Rows
from tests.registry.deleting import promote_version


def _adapter(session: Any, rows: Rows) -> Adapter:
    return get_adapter(session, rows.project_id, "bot", lock=True)


def _archive(rows: Rows, version: Version) -> None:
    with transaction(rows.services.sessions) as session:
        adapter = _adapter(session, rows)
        row = get_version(session, adapter, version.number)
        archive(session, adapter, row, actor="anna", reason="old")


def test_an_archived_version_does_not_serve_until_it_is_taken_out(rows: Rows) -> None:
    rows.task("a")
    version = rows.version("a")
    _archive(rows, version)
    _archive(rows, version)
    with transaction(rows.services.sessions) as session, pytest.raises(VersionNotServable, match="is archived"):
        resolve(session, rows.project_id, "bot@1")
    with pytest.raises(VersionNotServable):
        promote_version(rows, version)
    with transaction(rows.services.sessions) as session:
        unarchive(session, get_version(session, _adapter(session, rows), 1), actor="ben", reason="after all")
    promote_version(rows, version)
    with transaction(rows.services.sessions) as session:
        assert [(c.kind, c.actor, c.reason) for c in version_changes(session, version)] == [
            ("archived", "anna", "old"),
            ("unarchived", "ben", "after all"),
        ]


def test_what_is_needed_is_not_archived(rows: Rows) -> None:
    rows.task("a")
    parent = rows.version("a")
    child = rows.version("a", parent=parent)
    promote_version(rows, child)
    with pytest.raises(VersionNeeded, match="version 2 was trained from it"):
        _archive(rows, parent)
    with pytest.raises(VersionNeeded, match="alias champion points at it"):
        _archive(rows, child)
    read = rows.version("a")
    with transaction(rows.services.sessions) as session:
        job = jobs.create_job(session, rows.project_id, TrainWeaver("a", parent=3), _adapter(session, rows))
    with pytest.raises(VersionNeeded, match=f"job {job.id} is queued and reads it"):
        _archive(rows, read)
