"""Archives of versions with a memory per task: every part comes along, checked, and stays as long as it is needed."""

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from registry.adapters import create_adapter, get_adapter
from registry.clock import utc_now
from registry.database import transaction
from registry.errors import InvalidArchive
from registry.models import Version
from registry.retention.garbage import find_garbage
from registry.transfer.admission import import_version
from registry.transfer.archive import Archive, describe_version, read_archive
from registry.versions.ancestry import learned_tasks
from registry.versions.artifacts import artifact_key
from tests.registry.conftest import Rows, chats
from tests.registry.stored_versions import (
    elsewhere,
    export_version,
    make_stored_version,
    purge_versions,
    retar,
    store_archive,
    stored_keys,
)

LIMIT = 10_000_000


@pytest.fixture
def desk(rows: Rows) -> list[Version]:
    """Versions of `desk`: of task a, of b beside a, and of a anew beside b."""
    rows.adapter = "desk"
    with transaction(rows.services.sessions) as session:
        rows.make_adapter(session, strategy="isolated")
    rows.task("a", chats(40))
    first = make_stored_version(rows, "a", others={})
    rows.task("b", chats(40, word="parcel"))
    second = make_stored_version(rows, "b", parent=first, others={"a": first.artifact_hash})
    return [first, second, make_stored_version(rows, "a", parent=second, others={"b": second.artifact_hash})]


def _import(rows: Rows, archive: Archive) -> Version:
    key = store_archive(rows, archive)
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter, lock=True)
        return import_version(session, adapter, archive.description, archive.report, key=key, actor="anna")[0]


def _artifacts(rows: Rows) -> set[str]:
    """Hashes of the artifacts that lie in the store."""
    return {key.split("/")[3] for key in stored_keys(rows, f"projects/{rows.project_id}/artifacts/")}


def test_every_part_comes_along_and_goes_on_from_there(rows: Rows, desk: list[Version], tmp_path: Path) -> None:
    first, second, third = desk
    path = export_version(rows, third, tmp_path / "one.tar")
    assert path.read_bytes() == export_version(rows, third, tmp_path / "again.tar").read_bytes()
    archive = read_archive(path, tmp_path / "read", max_bytes=LIMIT)
    assert archive.description["parts"] == {"b": second.artifact_hash}
    assert archive.parts.keys() == {second.artifact_hash}, "what the third replaced stays at home"

    there = elsewhere(rows, strategy="isolated")
    imported = _import(there, archive)
    assert (imported.number, imported.artifact_hash) == (1, third.artifact_hash)
    with transaction(rows.services.sessions) as session:
        assert [task.name for task in learned_tasks(session, session.get_one(Version, imported.id))] == ["a", "b"]
    assert _artifacts(there) == {second.artifact_hash, third.artifact_hash}
    for version in (second, third):
        mine, theirs = (artifact_key(each.project_id, version.artifact_hash) for each in (rows, there))
        names = [key.removeprefix(mine) for key in stored_keys(rows, mine)]
        assert [key.removeprefix(theirs) for key in stored_keys(rows, theirs)] == names
        for name in names:
            assert rows.services.store.get(mine + name) == rows.services.store.get(theirs + name)

    # Its parts are no versions there, and are found all the same when it moves on.
    moved = read_archive(export_version(there, imported, tmp_path / "on.tar"), tmp_path / "on", max_bytes=LIMIT)
    assert moved.parts.keys() == {second.artifact_hash}
    alone = read_archive(export_version(rows, first, tmp_path / "alone.tar"), tmp_path / "alone", max_bytes=LIMIT)
    assert (alone.parts, alone.description["parts"]) == ({}, {})


def _set_description(**fields: Any) -> Callable[[dict[str, bytes], str], None]:
    def edit(files: dict[str, bytes], _: str) -> None:
        files["version.json"] = json.dumps({**json.loads(files["version.json"]), **fields}).encode()

    return edit


def _drop_part(files: dict[str, bytes], part: str) -> None:
    for name in [name for name in files if name.startswith(part)]:
        del files[name]


def _forge_whole(files: dict[str, bytes], part: str) -> None:
    """Another memory, whole in itself, in the part's place."""
    for name in [name for name in files if name.startswith(part)]:
        files[name] = files[name.replace(part, "artifact")]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda files, part: files.update({f"{part}/memory.safetensors": b"forged"}),
            "{part}/memory.safetensors has sha256 {forged}; the manifest says {memory}",
        ),
        (
            lambda files, part: files.pop(f"{part}/memory.safetensors"),
            "the files of {part} differ from its manifest: missing ['memory.safetensors'], unexpected []",
        ),
        (
            lambda files, part: files.update({f"{part}/more.bin": b""}),
            "the files of {part} differ from its manifest: missing [], unexpected ['more.bin']",
        ),
        (
            lambda files, part: files.pop(f"{part}/manifest.json"),
            "{part} has no manifest.json; expected one with sha256 {hash}",
        ),
        (_forge_whole, "{part}/manifest.json has sha256 {own}; expected {hash}"),
        (_drop_part, "the archive has no parts/{hash}; expected the memory of task 'a' there"),
        (
            lambda files, part: files.update({f"parts/{'0' * 64}/manifest.json": b"{}"}),
            "the archive has parts ['" + "0" * 64 + "']; artifact/isolated.json does not name them",
        ),
        (_set_description(parts={}), "artifact/isolated.json names"),
        (
            lambda files, _: files.update({"artifact/router.safetensors": b"forged"}),
            "artifact/router.safetensors has sha256 {forged}; the manifest says {router}",
        ),
        (
            lambda files, _: files.pop("artifact/isolated.json"),
            "the files of artifact differ from its manifest: missing ['isolated.json'], unexpected []",
        ),
        (lambda files, _: files.update({"parts/x": b""}), "the archive has 'parts/x'; expected files version.json"),
        (lambda files, _: files.update({"parts/x/../../outside": b""}), "outside'; expected files"),
    ],
)
def test_a_broken_part_is_named_with_what_was_expected(
    rows: Rows, desk: list[Version], tmp_path: Path, edit: Callable[[dict[str, bytes], str], None], message: str
) -> None:
    first, second, _ = desk
    part = f"parts/{first.artifact_hash}"
    path = export_version(rows, second, tmp_path / "one.tar")
    broken = retar(path, tmp_path / "broken.tar", lambda files: edit(files, part))
    with pytest.raises(InvalidArchive) as refused:
        read_archive(broken, tmp_path / "read", max_bytes=LIMIT)
    manifest = json.loads(rows.services.store.get(f"{first.artifact_key}/manifest.json"))
    names = {
        "part": part,
        "hash": first.artifact_hash,
        "own": second.artifact_hash,
        "memory": manifest["memory.safetensors"],
        "router": manifest["router.safetensors"],
        "forged": hashlib.sha256(b"forged").hexdigest(),
    }
    assert message.format(**names) in str(refused.value)
    assert not (tmp_path / "outside").exists()


def test_a_store_that_lost_or_changed_a_part_exports_nothing(rows: Rows, desk: list[Version], tmp_path: Path) -> None:
    first, second, _ = desk
    rows.services.store.put(f"{first.artifact_key}/memory.safetensors", b"rotten")
    with pytest.raises(InvalidArchive, match=f"parts/{first.artifact_hash}/memory.safetensors has sha256"):
        export_version(rows, second, tmp_path / "one.tar")
    assert not (tmp_path / "one.tar").exists()


def test_hashes_from_outside_are_no_paths(rows: Rows, tmp_path: Path) -> None:
    """An archive that is whole by its own hashes, and names a part by a path."""
    rows.task("a", chats(40))
    version = make_stored_version(rows, "a", others={"b": "../artifact"})
    with transaction(rows.services.sessions) as session:
        described = describe_version(session, session.get_one(Version, version.id)) | {"parts": {}}
    plain = make_stored_version(rows, "a")
    path = export_version(rows, plain, tmp_path / "one.tar")

    def forge(files: dict[str, bytes]) -> None:
        files.clear()
        files["version.json"] = json.dumps(described).encode()
        for key in stored_keys(rows, version.artifact_key):
            files["artifact" + key.removeprefix(version.artifact_key)] = rows.services.store.get(key)

    with pytest.raises(InvalidArchive, match=r"is {'b': '../artifact'}; expected a sha256 by task"):
        read_archive(retar(path, tmp_path / "forged.tar", forge), tmp_path / "read", max_bytes=LIMIT)


def test_an_adapter_of_another_strategy_would_lose_memories(rows: Rows, desk: list[Version], tmp_path: Path) -> None:
    archive = read_archive(export_version(rows, desk[1], tmp_path / "one.tar"), tmp_path / "read", max_bytes=LIMIT)
    with pytest.raises(InvalidArchive, match="adapter 'desk' has strategy 'replay'.*with strategy 'isolated'"):
        _import(elsewhere(rows), archive)


def test_the_memory_of_a_single_task_goes_anywhere(rows: Rows, desk: list[Version], tmp_path: Path) -> None:
    archive = read_archive(export_version(rows, desk[0], tmp_path / "one.tar"), tmp_path / "read", max_bytes=LIMIT)
    there = elsewhere(rows)
    imported = _import(there, archive)
    assert (imported.number, imported.artifact_hash) == (1, desk[0].artifact_hash)
    with transaction(there.services.sessions) as session:
        assert get_adapter(session, there.project_id, there.adapter).strategy == "replay"


def test_parts_stay_as_long_as_their_version(rows: Rows, desk: list[Version], tmp_path: Path) -> None:
    """In the project that they came from, where other versions have the same bytes."""
    first, second, _ = desk
    archive = read_archive(export_version(rows, second, tmp_path / "one.tar"), tmp_path / "read", max_bytes=LIMIT)
    copies = Rows(rows.services, rows.project_id, "copy")
    with transaction(rows.services.sessions) as session:
        values = {"base_model": "tiny", "base_revision": "r1", "strategy": "isolated"}
        create_adapter(session, rows.project_id, name="copy", **values)
    _import(copies, archive)
    _import(copies, read_archive(export_version(rows, second, tmp_path / "two.tar"), tmp_path / "two", max_bytes=LIMIT))

    def garbage() -> list[str]:
        services, later = rows.services, utc_now() + timedelta(hours=2)
        found = find_garbage(services.sessions, services.store, rows.project_id, now=later, grace=timedelta(hours=1))
        return [each.key for each in found if "/artifacts/" in each.key]

    purge_versions(rows, 1, 2, 3)
    assert _artifacts(rows) == {first.artifact_hash, second.artifact_hash}
    assert garbage() == []
    purge_versions(copies, 1)
    assert _artifacts(rows) == {first.artifact_hash, second.artifact_hash}, "the other copy needs them"
    purge_versions(copies, 2)
    assert _artifacts(rows) == set()
    rows.services.store.put(f"{first.artifact_key}/memory.json", b"left behind")
    assert garbage() == [f"{first.artifact_key}/memory.json"]


def test_a_memory_setting_that_one_side_does_not_know_is_off(rows: Rows, desk: list[Version], tmp_path: Path) -> None:
    """An archive made before there were cues fits an adapter that has none, and no other."""
    archive = read_archive(export_version(rows, desk[0], tmp_path / "one.tar"), tmp_path / "read", max_bytes=LIMIT)
    assert "cue_tokens" not in archive.description["memory"]
    same = {**archive.description["memory"], "cue_tokens": 0, "cue_states": False}
    assert _import(elsewhere(rows, strategy="isolated", memory=same), archive).number == 1
    with pytest.raises(InvalidArchive, match="cue_tokens"):
        _import(elsewhere(rows, strategy="isolated", memory={**same, "cue_tokens": 160}), archive)
