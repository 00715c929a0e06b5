"""Tags, the archive, retention, comparison, export and import, garbage: what is kept, and that nothing needed goes."""

import hashlib
import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from registry import jobs
from registry.adapters import get_adapter
from registry.clock import utc_now
from registry.database import transaction
from registry.errors import InvalidArchive, InvalidName, VersionNeeded, VersionNotServable
from registry.gates.comparison import compare_versions, differences
from registry.models import Adapter, Dataset, Job, Version, VersionChange, VersionImport
from registry.object_store import StoredObject
from registry.retention.archiving import archive, unarchive
from registry.retention.garbage import collect_garbage, find_garbage
from registry.retention.policy import keep_last, plan_retention, purge, set_policy
from registry.serving.aliases import promote, roll_back
from registry.serving.resolution import resolve
from registry.tasks import create_task
from registry.transfer.admission import accept_origin_verdict, can_be_checked, find_import, import_version
from registry.transfer.archive import Archive, describe_version, read_archive, write_archive
from registry.versions.ancestry import learned_tasks
from registry.versions.records import get_version
from registry.versions.tags import tag, tags_of, untag, version_changes
from tests.registry.conftest import Rows, chats
from tests.registry.keeping import elsewhere, make_stored_version, retar, stored_keys

LIMIT = 10_000_000


def _adapter(session: Any, rows: Rows) -> Adapter:
    return get_adapter(session, rows.project_id, "bot", lock=True)


def _promote(rows: Rows, version: Version, alias: str = "champion") -> None:
    with transaction(rows.services.sessions) as session:
        adapter = _adapter(session, rows)
        promote(session, adapter, alias, get_version(session, adapter, version.number), actor="test", reason="")


def _archive(rows: Rows, version: Version) -> None:
    with transaction(rows.services.sessions) as session:
        adapter = _adapter(session, rows)
        row = get_version(session, adapter, version.number)
        archive(session, adapter, row, actor="anna", reason="old")


def _plan(rows: Rows, keep: int) -> tuple[dict[int, tuple[str, ...]], list[int]]:
    with transaction(rows.services.sessions) as session:
        plan = plan_retention(session, _adapter(session, rows), keep)
        return {row.number: reasons for row, reasons in plan.kept}, [row.number for row in plan.purged]


def test_tags_are_free_labels_with_a_history(rows: Rows) -> None:
    rows.task("a")
    version = rows.version("a")
    with transaction(rows.services.sessions) as session:
        for name in ("second", "first", "first"):
            tag(session, version, name, actor="anna")
        assert tags_of(session, [version.id]) == {version.id: ["first", "second"]}
        untag(session, version, "second", actor="ben")
        untag(session, version, "never", actor="ben")
        told = [(c.kind, c.evidence["tag"], c.actor) for c in version_changes(session, version)]
        assert told == [("tagged", "second", "anna"), ("tagged", "first", "anna"), ("untagged", "second", "ben")]
        with pytest.raises(InvalidName):
            tag(session, version, "No Spaces", actor="anna")


def test_an_archived_version_does_not_serve_until_it_is_taken_out(rows: Rows) -> None:
    rows.task("a")
    version = rows.version("a")
    _archive(rows, version)
    _archive(rows, version)
    with transaction(rows.services.sessions) as session, pytest.raises(VersionNotServable, match="is archived"):
        resolve(session, rows.project_id, "bot@1")
    with pytest.raises(VersionNotServable):
        _promote(rows, version)
    with transaction(rows.services.sessions) as session:
        unarchive(session, get_version(session, _adapter(session, rows), 1), actor="ben", reason="after all")
    _promote(rows, version)
    with transaction(rows.services.sessions) as session:
        assert [(c.kind, c.actor, c.reason) for c in version_changes(session, version)] == [
            ("archived", "anna", "old"),
            ("unarchived", "ben", "after all"),
        ]


def test_what_is_needed_is_not_archived(rows: Rows) -> None:
    rows.task("a")
    parent = rows.version("a")
    child = rows.version("a", parent=parent)
    _promote(rows, child)
    with pytest.raises(VersionNeeded, match="version 2 was trained from it"):
        _archive(rows, parent)
    with pytest.raises(VersionNeeded, match="alias champion points at it"):
        _archive(rows, child)
    read = rows.version("a")
    with transaction(rows.services.sessions) as session:
        job = jobs.create_job(session, rows.project_id, "train_weaver", {"parent": 3}, _adapter(session, rows))
    with pytest.raises(VersionNeeded, match=f"job {job.id} is queued and reads it"):
        _archive(rows, read)


def test_retention_keeps_the_newest_and_what_is_needed(rows: Rows) -> None:
    rows.task("a")
    lone, parent = rows.version("a", passed=False), rows.version("a")
    child = rows.version("a", parent=parent)
    other, tagged, served, _ = (rows.version("a") for _ in range(4))
    for version in (other, child, served):
        _promote(rows, version)
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
        _promote(rows, version)
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


def test_two_versions_side_by_side(rows: Rows) -> None:
    rows.task("a", chats(40))
    one = make_stored_version(rows, "a")
    rows.task("b", chats(40, word="parcel"))
    other = make_stored_version(rows, "b", parent=one, passed=False)
    with transaction(rows.services.sessions) as session:
        found = compare_versions(session, session.get_one(Version, one.id), session.get_one(Version, other.id))
        assert (found.left.scores, found.right.scores, found.changes) == ({"a": 1.0}, {"b": 1.0}, {})
        assert found.different["config.task"] == ("a", "b")
        assert found.different["config.parent"] == (None, 1)
        assert "config.training.steps" not in found.different
        assert found.left.losses == [2.0, 1.0, 0.5]
        assert found.left.gate is not None
        assert (found.left.gate.passed, found.right.gate and found.right.gate.passed) == (True, False)
        again = compare_versions(session, session.get_one(Version, one.id), session.get_one(Version, one.id))
        assert (again.different, again.changes) == ({}, {"a": 0.0})


def test_differences_go_into_objects() -> None:
    left, right = {"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"b": 2, "c": [1]}, "e": 1}
    assert differences(left, right) == {"a.b": (1, 2), "d": (1, None), "e": (None, 1)}


def _export(rows: Rows, version: Version, path: Path) -> Path:
    with transaction(rows.services.sessions) as session:
        description = describe_version(session, session.get_one(Version, version.id))
    write_archive(rows.services.store, description, version.artifact_key, path)
    return path


def _import(rows: Rows, archive: Archive) -> tuple[Version, Job]:
    key = f"projects/{rows.project_id}/artifacts/{archive.description['artifact_hash']}"
    with transaction(rows.services.sessions) as session:
        adapter = _adapter(session, rows)
        return import_version(session, adapter, archive.description, archive.report, key=key, actor="anna")


def test_a_version_goes_to_another_installation_and_has_to_pass_there(rows: Rows, tmp_path: Path) -> None:
    rows.task("a", chats(40))
    first = make_stored_version(rows, "a")
    rows.task("b", chats(40, word="parcel"))
    version = make_stored_version(rows, "b", parent=first)
    path = _export(rows, version, tmp_path / "one.tar")
    assert path.read_bytes() == _export(rows, version, tmp_path / "again.tar").read_bytes()

    there = elsewhere(rows)
    with transaction(rows.services.sessions) as session:
        create_task(session, there.project_id, "a", grader={"kind": "numeric"}, holdout_share=0.5)
    archive = read_archive(path, tmp_path / "read", max_bytes=LIMIT)
    imported, check = _import(there, archive)
    assert (imported.number, imported.parent_id, imported.artifact_hash) == (1, None, version.artifact_hash)
    assert (check.kind, check.params) == ("check_import", {"version": 1, "promote": False})
    with transaction(rows.services.sessions) as session:
        row = session.get_one(Version, imported.id)
        assert [task.name for task in learned_tasks(session, row)] == ["a", "b"]
        assert [task.grader["kind"] for task in learned_tasks(session, row)] == ["numeric", "exact"]
        origin = session.get_one(VersionImport, row.id).origin
        assert (origin["number"], [each["number"] for each in origin["lineage"]]) == (2, [1, 2])
        assert row.report["losses"] == [2.0, 1.0, 0.5]
        assert find_import(session, _adapter(session, there), version.artifact_hash) == row
    with pytest.raises(Exception, match="unchecked"):
        _promote(there, imported)

    with transaction(rows.services.sessions) as session:
        row = session.get_one(Version, imported.id)
        assert not can_be_checked(session, row)
        gate = accept_origin_verdict(session, row)
        assert gate.passed
        assert gate.reasons == [
            "not checked here: this installation has no held-out items of a, b; at its origin bot@2 was passed"
        ]
    _promote(there, imported)


def test_an_installation_with_held_out_items_checks_itself(rows: Rows, tmp_path: Path) -> None:
    rows.task("a", chats(40))
    path = _export(rows, make_stored_version(rows, "a"), tmp_path / "one.tar")
    there = elsewhere(rows)
    there.task("a", chats(40, word="parcel"))
    imported, _ = _import(there, read_archive(path, tmp_path / "read", max_bytes=LIMIT))
    with transaction(rows.services.sessions) as session:
        assert can_be_checked(session, session.get_one(Version, imported.id))


def test_an_archive_for_another_base_or_memory_names_both(rows: Rows, tmp_path: Path) -> None:
    rows.task("a", chats(40))
    archive = read_archive(
        _export(rows, make_stored_version(rows, "a"), tmp_path / "one.tar"), tmp_path / "read", max_bytes=LIMIT
    )
    with pytest.raises(InvalidArchive, match="made for tiny at r1; adapter 'bot' is bound to tiny at r2"):
        _import(elsewhere(rows, base_revision="r2"), archive)
    there = elsewhere(rows)
    with transaction(rows.services.sessions) as session:
        _adapter(session, there).memory = {"latents": 4}
    with pytest.raises(InvalidArchive, match="latents: None in the archive, 4 here"):
        _import(there, archive)


def _set_description(**fields: Any) -> Callable[[dict[str, bytes]], None]:
    def edit(files: dict[str, bytes]) -> None:
        files["version.json"] = json.dumps({**json.loads(files["version.json"]), **fields}).encode()

    return edit


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda f: f.update({"artifact/memory.safetensors": b"forged"}), "memory.safetensors has sha256"),
        (lambda f: f.update({"artifact/more.bin": b""}), "unexpected ['more.bin']"),
        (lambda f: f.pop("artifact/report.json"), "missing ['report.json']"),
        (lambda f: f.pop("artifact/manifest.json"), "has no manifest.json"),
        (lambda f: f.pop("version.json"), "has no version.json"),
        (lambda f: f.update({"../outside": b"x"}), "'../outside'"),
        (lambda f: f.update({"artifact/../../outside": b"x"}), "outside'"),
        (lambda f: f.update({"/etc/x": b"x"}), "'/etc/x'"),
        (lambda f: f.update({"artifact/link": b""}), "'artifact/link'"),
        (lambda f: f.update({"version.json": b"{"}), "version.json: not JSON"),
        (_set_description(format=9), "has format 9"),
        (_set_description(artifact_hash="0" * 64), "; expected 0000"),
        (_set_description(base_revision="r9"), "made for base revision r1, version.json says r9"),
        (_set_description(lineage=[]), "version.json: lineage is []; expected: List should have at least 1 item"),
        (lambda f: f.update({"artifact/big": b"x" * LIMIT}), "unpacks to more than"),
    ],
)
def test_a_broken_archive_is_refused(
    rows: Rows, tmp_path: Path, edit: Callable[[dict[str, bytes]], None], told: str
) -> None:
    rows.task("a", chats(40))
    path = _export(rows, make_stored_version(rows, "a"), tmp_path / "one.tar")
    broken = retar(path, tmp_path / "broken.tar", edit)
    with pytest.raises(InvalidArchive) as refused:
        read_archive(broken, tmp_path / "read", max_bytes=LIMIT)
    assert told in str(refused.value)
    assert not (tmp_path / "outside").exists()


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"not a tar")
    with pytest.raises(InvalidArchive, match="not an archive of a version"):
        read_archive(path, tmp_path / "read", max_bytes=LIMIT)


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
        live = jobs.create_job(session, rows.project_id, "train_weaver", {}).id
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
