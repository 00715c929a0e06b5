"""Lineages and what was learned along them, in as many queries for a long line as for a short one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from registry.adapters import get_adapter
from registry.database import transaction
from registry.gates.verdict import gates_of
from registry.models import Version
from registry.versions.ancestry import ancestors_and_self, learned_tasks, tasks_by_version
from registry.versions.records import list_versions
from tests.query_counts import record_queries
from tests.registry.conftest import Rows, chats
from tests.registry.stored_versions import elsewhere, export_version, import_archive, make_stored_version


def _count(rows: Rows, call: Callable[[Session, Version], Any], version: Version) -> int:
    """Queries of a call, beside one for the version itself."""
    with transaction(rows.services.sessions) as session, record_queries(rows.services.engine) as sent:
        call(session, session.get_one(Version, version.id))
    return len(sent) - 1


def test_tasks_come_in_the_order_they_were_first_learned(rows: Rows) -> None:
    for task in "cab":
        rows.task(task)
    first = rows.version("b")
    second = rows.version("a", parent=first)
    other = rows.version("c", parent=first)
    last = rows.version("b", parent=rows.version("c", parent=second))
    with transaction(rows.services.sessions) as session:
        found = tasks_by_version(session, [last, other, first])
        named = {id_: [task.name for task in tasks] for id_, tasks in found.items()}
        assert named == {last.id: ["b", "a", "c"], other.id: ["b", "c"], first.id: ["b"]}
        assert learned_tasks(session, last) == found[last.id]
        assert [version.number for version in ancestors_and_self(session, last)] == [1, 2, 4, 5]
        assert (learned_tasks(session, None), ancestors_and_self(session, None), tasks_by_version(session, [])) == (
            [],
            [],
            {},
        )


def test_what_goes_on_from_an_imported_version_has_learned_what_that_had(rows: Rows, tmp_path: Path) -> None:
    rows.task("b", chats(40))
    rows.task("a", chats(40, word="parcel"))
    version = make_stored_version(rows, "a", parent=make_stored_version(rows, "b"))
    path = export_version(rows, version, tmp_path / "one.tar")
    there = elsewhere(rows)
    there.task("c", chats(40, word="refund"))
    imported = import_archive(there, path, tmp_path / "read").version
    child = there.version("c", parent=imported)
    with transaction(rows.services.sessions) as session:
        assert [task.name for task in learned_tasks(session, child)] == ["b", "a", "c"]


def test_a_long_line_takes_as_many_queries_as_a_short_one(rows: Rows) -> None:
    def read_line(session: Session, version: Version) -> None:
        for ancestor in ancestors_and_self(session, version):
            assert ancestor.dataset.task.name

    rows.task("a")
    rows.task("b")
    first = last = rows.version("a")
    for n in range(11):
        last = rows.version("ab"[n % 2], parent=last)
    for version in (first, last):
        assert _count(rows, learned_tasks, version) == 1
        assert _count(rows, read_line, version) == 1


def test_gates_of_many_versions_are_read_at_once(rows: Rows) -> None:
    rows.task("a")
    versions = [rows.version("a") for _ in range(4)]
    unchecked = rows.version("a", passed=None)
    with transaction(rows.services.sessions) as session, record_queries(rows.services.engine) as sent:
        listed = list_versions(session, get_adapter(session, rows.project_id, "bot"))
        found = gates_of(session, listed)
        assert all(version.dataset.task.name == "a" for version in listed)
        assert set(found) == {version.id for version in versions}
        assert [version.id for version in listed] == [*(version.id for version in versions), unchecked.id]
    assert len(sent) == 3
