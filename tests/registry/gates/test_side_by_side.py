"""Comparison of two versions."""

from registry.database import transaction
from registry.gates.side_by_side import compare_versions, differences
from registry.models import Version
from tests.registry.conftest import Rows, chats
from tests.registry.stored_versions import make_stored_version


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
