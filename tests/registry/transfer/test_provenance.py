"""Archives that come in and deletions: what was learned before an import counts as if it had been learned here."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from registry.database import migration_config, transaction
from registry.deletion.deletions import DeletionPolicy
from registry.errors import LearnedDeleted, VersionNotServable
from registry.models import Trajectory, Version, VersionChange, VersionImportDataset
from registry.versions.artifacts import artifact_key
from registry.versions.lineage import learned_deleted, trajectory_lineage
from registry.versions.state import check_exportable, why_not_servable
from tests.registry.conftest import Rows, chats
from tests.registry.deleting import delete
from tests.registry.stored_versions import (
    beside,
    elsewhere,
    export_version,
    import_archive,
    make_stored_version,
    purge_versions,
    retar,
    stored_keys,
    trajectories,
)


@pytest.fixture
def line(rows: Rows) -> list[Version]:
    """`bot@1` of task a, and its child `bot@2` of task b."""
    rows.task("a", [*chats(40), *chats(20, word="secret", session_id="s1")])
    rows.task("b")
    first = make_stored_version(rows, "a")
    return [first, make_stored_version(rows, "b", parent=first)]


def _victim(rows: Rows) -> Trajectory:
    return next(row for row in trajectories(rows, held_out=False) if row.session_id == "s1")


def _delete_victim(rows: Rows, policy: DeletionPolicy = "withdraw") -> None:
    delete(rows, "trajectory", str(_victim(rows).id), policy)


def _servable(rows: Rows, version: Version) -> bool:
    with transaction(rows.services.sessions) as session:
        return why_not_servable(session, session.get_one(Version, version.id)) is None


def _strip_lineage(files: dict[str, bytes]) -> None:
    """Remove the ancestors, as if the version had none."""
    description = json.loads(files["version.json"])
    files["version.json"] = json.dumps({**description, "lineage": description["lineage"][-1:]}).encode()


@pytest.mark.parametrize("stripped", [False, True])
def test_a_copy_is_touched_by_what_its_ancestors_learned(
    rows: Rows, line: list[Version], tmp_path: Path, stripped: bool
) -> None:
    path = export_version(rows, line[1], tmp_path / "two.tar")
    if stripped:
        path = retar(path, tmp_path / "stripped.tar", _strip_lineage)
    copies = beside(rows, "copy")
    copy = import_archive(copies, path, tmp_path / "read").version
    child = make_stored_version(copies, "b", parent=copy)
    with transaction(rows.services.sessions) as session:
        found = trajectory_lineage(session, session.get_one(Trajectory, _victim(rows).id))
        named = [(version.adapter.name, version.number) for version in found.versions]
        assert named == [("bot", 1), ("bot", 2), ("copy", 1), ("copy", 2)]
    _delete_victim(rows)
    assert not any(_servable(rows, version) for version in (*line, copy, child))
    with transaction(rows.services.sessions) as session:
        learned = learned_deleted(session, [copy, child])
        assert learned == {copy.id, child.id}


def test_data_that_no_ancestor_learned_leaves_a_copy_alone(rows: Rows, line: list[Version], tmp_path: Path) -> None:
    rows.task("c", chats(20, word="more", session_id="s2"))
    make_stored_version(rows, "c")
    copy = import_archive(beside(rows, "copy"), export_version(rows, line[1], tmp_path / "2.tar"), tmp_path / "2")
    delete(rows, "session", "s2", "withdraw")
    assert _servable(rows, copy.version)


def test_ancestors_are_known_over_two_moves(rows: Rows, line: list[Version], tmp_path: Path) -> None:
    """To another installation, on from there, and back."""
    there = elsewhere(rows)
    copy = import_archive(there, export_version(rows, line[1], tmp_path / "out.tar"), tmp_path / "out").version
    there.task("c", chats(40, word="more"))
    child = make_stored_version(there, "c", parent=copy)
    back = export_version(there, child, tmp_path / "back.tar")
    returned = import_archive(beside(rows, "returned"), back, tmp_path / "back").version
    _delete_victim(rows)
    assert not _servable(rows, returned)
    assert _servable(there, copy), "what another installation does with its copy is its own"
    with pytest.raises(LearnedDeleted, match=r"the archive of bot@2 goes on from bot@1, which was withdrawn at"):
        import_archive(beside(rows, "again"), back, tmp_path / "again")


@pytest.mark.parametrize("adapter", ["bot", "copy"])
def test_what_was_withdrawn_neither_leaves_nor_comes_in_again(
    rows: Rows, line: list[Version], tmp_path: Path, adapter: str
) -> None:
    path = export_version(rows, line[1], tmp_path / "two.tar")
    stripped = retar(path, tmp_path / "stripped.tar", _strip_lineage)
    target = rows if adapter == "bot" else beside(rows, adapter)
    _delete_victim(rows)
    with transaction(rows.services.sessions) as session, pytest.raises(VersionNotServable, match="export another"):
        check_exportable(session, session.get_one(Version, line[1].id))
    with pytest.raises(LearnedDeleted, match=r"goes on from bot@1"):
        import_archive(target, path, tmp_path / "read")
    with pytest.raises(LearnedDeleted, match=r"has the artifact of bot@2"):
        import_archive(target, stripped, tmp_path / "stripped")
    with transaction(rows.services.sessions) as session:
        numbers = session.scalars(sa.select(Version.number).order_by(Version.number)).all()
    assert numbers == [1, 2]


def test_what_learned_erased_data_does_not_come_in_whatever_the_policy(
    rows: Rows, line: list[Version], tmp_path: Path
) -> None:
    path = export_version(rows, line[1], tmp_path / "two.tar")
    _delete_victim(rows, "keep")
    message = r"the lineage of bot@2 has dataset [0-9a-f]{64}, of which deletion .* removed data here at"
    with pytest.raises(LearnedDeleted, match=message):
        import_archive(beside(rows, "copy"), path, tmp_path / "read")
    with transaction(rows.services.sessions) as session:
        check_exportable(session, session.get_one(Version, line[1].id))


@pytest.mark.parametrize("adapter", ["bot", "copy"])
def test_an_archive_brings_back_what_retention_removed(
    rows: Rows, line: list[Version], tmp_path: Path, adapter: str
) -> None:
    """Trained here, or imported before."""
    path = export_version(rows, line[1], tmp_path / "two.tar")
    target = rows if adapter == "bot" else beside(rows, adapter)
    known = line[1] if adapter == "bot" else import_archive(target, path, tmp_path / "first").version
    before = stored_keys(rows, known.artifact_key)
    purge_versions(rows, 2)
    if adapter == "copy":
        purge_versions(target, 1)
    assert not _servable(rows, known)
    assert not stored_keys(rows, known.artifact_key)

    found = import_archive(target, path, tmp_path / "second")
    assert (found.version.id, found.check, found.restored) == (known.id, None, True)
    assert _servable(rows, known)
    assert stored_keys(rows, known.artifact_key) == before
    assert not import_archive(target, path, tmp_path / "third").restored
    with transaction(rows.services.sessions) as session:
        query = sa.select(VersionChange).where(VersionChange.version_id == known.id).order_by(VersionChange.seq)
        changes = session.scalars(query).all()
        assert [change.kind for change in changes][-2:] == ["purged", "restored"]
        assert (changes[-1].actor, changes[-1].evidence["origin"]) == ("anna", "bot@2")


def test_what_was_withdrawn_and_purged_does_not_come_back(rows: Rows, line: list[Version], tmp_path: Path) -> None:
    path = export_version(rows, line[1], tmp_path / "two.tar")
    _delete_victim(rows)
    purge_versions(rows, 2)
    with pytest.raises(LearnedDeleted):
        import_archive(rows, path, tmp_path / "read")
    assert not _servable(rows, line[1])


def test_memories_of_other_tasks_come_back_with_their_own_versions(rows: Rows, tmp_path: Path) -> None:
    """A version that was trained here names them by hash; their bytes belong to its ancestors."""
    rows.adapter = "desk"
    with transaction(rows.services.sessions) as session:
        rows.make_adapter(session, strategy="isolated")
    rows.task("a")
    rows.task("b")
    first = make_stored_version(rows, "a", others={})
    second = make_stored_version(rows, "b", parent=first, others={"a": first.artifact_hash})
    archives = [export_version(rows, each, tmp_path / f"{each.number}.tar") for each in (first, second)]
    purge_versions(rows, 1, 2)
    with pytest.raises(VersionNotServable, match=f"removed the bytes of {first.artifact_hash}: import the archives"):
        import_archive(rows, archives[1], tmp_path / "early")
    assert not _servable(rows, second)
    for number, path in enumerate(archives, 1):
        found = import_archive(rows, path, tmp_path / f"read-{number}")
        assert (found.version.number, found.restored) == (number, True)
    assert _servable(rows, second)
    assert stored_keys(rows, artifact_key(rows.project_id, first.artifact_hash))


def test_earlier_imports_get_their_lineage_by_the_migration(
    rows: Rows, line: list[Version], tmp_path: Path, database_url: str
) -> None:
    target = beside(rows, "copy")
    copy = import_archive(target, export_version(rows, line[1], tmp_path / "two.tar"), tmp_path / "read").version
    purge_versions(target, 1)
    import_archive(target, tmp_path / "two.tar", tmp_path / "again")
    config = migration_config(database_url)
    command.downgrade(config, "0007")
    command.upgrade(config, "head")
    with transaction(rows.services.sessions) as session:
        links = session.execute(sa.select(VersionImportDataset.version_id, VersionImportDataset.dataset_id)).all()
        assert {tuple(link) for link in links} == {(copy.id, version.dataset_id) for version in line}
        kinds = session.scalars(sa.select(VersionChange.kind).where(VersionChange.version_id == copy.id)).all()
        assert sorted(kinds) == ["imported", "imported", "purged"]
