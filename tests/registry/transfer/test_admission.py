"""Imported versions: registered with their origin, and judged here before they serve."""

import json
from pathlib import Path
from typing import Any

import pytest

from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import GateNotPassed, InvalidArchive
from registry.models import Adapter, Job, Version, VersionImport
from registry.tasks import create_task
from registry.transfer.admission import accept_origin_verdict, can_be_checked, find_import, import_version
from registry.transfer.archive import Archive, read_archive
from registry.versions.ancestry import learned_tasks
from tests.registry.conftest import Rows, chats
from tests.registry.deleting import promote_version
from tests.registry.stored_versions import elsewhere, export_version, make_stored_version, retar

LIMIT = 10_000_000
_MADE = {"base_revision": "r1", "base_identity": {"chat_template": "c1"}}


def _adapter(session: Any, rows: Rows) -> Adapter:
    return get_adapter(session, rows.project_id, "bot", lock=True)


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
    path = export_version(rows, version, tmp_path / "one.tar")
    assert path.read_bytes() == export_version(rows, version, tmp_path / "again.tar").read_bytes()

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
    with pytest.raises(GateNotPassed):
        promote_version(there, imported)

    with transaction(rows.services.sessions) as session:
        row = session.get_one(Version, imported.id)
        assert not can_be_checked(session, row)
        gate = accept_origin_verdict(session, row)
        assert gate.passed
        assert gate.reasons == [
            "not checked here: this installation has no held-out items of a, b; at its origin bot@2 was passed"
        ]
    promote_version(there, imported)


def test_a_plain_lora_comes_as_one_into_an_adapter_of_memories(rows: Rows, tmp_path: Path) -> None:
    rows.task("a", chats(40))
    memory = {"memory.json": json.dumps({**_MADE, "config": {"form": "lora"}}).encode()}
    version = make_stored_version(rows, "a", form="lora", more=memory)
    assert version.form == "lora"
    archive = read_archive(export_version(rows, version, tmp_path / "one.tar"), tmp_path / "read", max_bytes=LIMIT)
    imported, _ = _import(elsewhere(rows), archive)
    assert imported.form == "lora"
    there = elsewhere(rows, memory={"form": "lora"})
    with pytest.raises(InvalidArchive, match="form: None in the archive, 'lora' here"):
        _import(there, archive)


def test_an_archive_that_names_another_form_than_its_memory_is_refused(rows: Rows, tmp_path: Path) -> None:
    rows.task("a", chats(40))
    memory = {"memory.json": json.dumps({**_MADE, "config": {"form": "lora"}}).encode()}
    path = export_version(rows, make_stored_version(rows, "a", more=memory), tmp_path / "one.tar")
    with pytest.raises(InvalidArchive, match="memory.json is of form 'lora', version.json says 'cache'"):
        read_archive(path, tmp_path / "read", max_bytes=LIMIT)


def test_an_archive_from_before_versions_had_forms_is_of_its_adapters(rows: Rows, tmp_path: Path) -> None:
    rows.task("a", chats(40))
    path = export_version(rows, make_stored_version(rows, "a"), tmp_path / "one.tar")
    archive = read_archive(path, tmp_path / "read", max_bytes=LIMIT)
    archive.description["form"] = None
    imported, _ = _import(elsewhere(rows), archive)
    assert imported.form == "cache"


def test_an_installation_with_held_out_items_checks_itself(rows: Rows, tmp_path: Path) -> None:
    rows.task("a", chats(40))
    path = export_version(rows, make_stored_version(rows, "a"), tmp_path / "one.tar")
    there = elsewhere(rows)
    there.task("a", chats(40, word="parcel"))
    imported, _ = _import(there, read_archive(path, tmp_path / "read", max_bytes=LIMIT))
    with transaction(rows.services.sessions) as session:
        assert can_be_checked(session, session.get_one(Version, imported.id))


def test_an_archive_for_another_base_or_memory_names_both(rows: Rows, tmp_path: Path) -> None:
    rows.task("a", chats(40))
    archive = read_archive(
        export_version(rows, make_stored_version(rows, "a"), tmp_path / "one.tar"), tmp_path / "read", max_bytes=LIMIT
    )
    with pytest.raises(InvalidArchive, match="made for tiny at r1; adapter 'bot' is bound to tiny at r2"):
        _import(elsewhere(rows, base_revision="r2"), archive)
    there = elsewhere(rows)
    with transaction(rows.services.sessions) as session:
        _adapter(session, there).memory = {"latents": 4}
    with pytest.raises(InvalidArchive, match="latents: None in the archive, 4 here"):
        _import(there, archive)


IDENTITY = {"tokenizer": "t1", "chat_template": "c1", "generation_config": "g1"}


@pytest.mark.parametrize(
    ("here", "changed"),
    [
        (IDENTITY, None),
        (None, None),
        ({**IDENTITY, "tokenizer": "t2"}, "tokenizer.json"),
        ({**IDENTITY, "chat_template": "c2"}, "chat_template.jinja"),
        ({**IDENTITY, "generation_config": "g2"}, "generation_config.json"),
    ],
)
def test_an_archive_goes_only_where_the_base_reads_alike(
    rows: Rows, tmp_path: Path, here: dict[str, str] | None, changed: str | None
) -> None:
    rows.task("a", chats(40))
    with transaction(rows.services.sessions) as session:
        _adapter(session, rows).base_identity = IDENTITY
    path = export_version(rows, make_stored_version(rows, "a"), tmp_path / "one.tar")
    archive = read_archive(path, tmp_path / "read", max_bytes=LIMIT)
    assert archive.description["base_identity"] == IDENTITY
    there = elsewhere(rows)
    with transaction(rows.services.sessions) as session:
        _adapter(session, there).base_identity = here
    if changed is None:
        assert _import(there, archive)[0].number == 1
        return
    with pytest.raises(InvalidArchive, match=f"made for tiny with another .*{changed}"):
        _import(there, archive)


def test_an_archive_of_an_earlier_release_says_nothing_of_it(rows: Rows, tmp_path: Path) -> None:
    rows.task("a", chats(40))
    path = export_version(rows, make_stored_version(rows, "a"), tmp_path / "one.tar")

    def edit(files: dict[str, bytes]) -> None:
        described = json.loads(files["version.json"])
        assert described.pop("base_identity") is None
        files["version.json"] = json.dumps(described).encode()

    archive = read_archive(retar(path, tmp_path / "old.tar", edit), tmp_path / "read", max_bytes=LIMIT)
    there = elsewhere(rows)
    with transaction(rows.services.sessions) as session:
        _adapter(session, there).base_identity = IDENTITY
    assert _import(there, archive)[0].number == 1
