"""Tags: free labels with a history."""

import pytest

from registry.database import transaction
from registry.errors import InvalidName
from registry.versions.tags import tag, tags_of, untag, version_changes
from tests.registry.conftest import Rows


def test_tags_are_free_labels_with_a_history(rows: Rows) -> None:
    rows.task("a")
    version = rows.version("a")
    with transaction(rows.services.sessions) as session:
        for name in ("second", "first", "first"):
            tag(session, version, name, actor="anna")
        assert tags_of(session, [version.id]) == {version.id: ["first", "second"]}
        untag(session, version, "second", actor="ben")
        untag(session, version, "never", actor="ben")
        changes = [(c.kind, c.evidence["tag"], c.actor) for c in version_changes(session, version)]
        assert changes == [("tagged", "second", "anna"), ("tagged", "first", "anna"), ("untagged", "second", "ben")]
        with pytest.raises(InvalidName):
            tag(session, version, "No Spaces", actor="anna")
