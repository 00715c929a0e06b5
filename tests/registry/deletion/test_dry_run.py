"""A dry run says what the deletion does, and takes no longer for it where ten thousand versions learned the data."""

from typing import Any

from registry.database import transaction
from registry.deletion.answers import count_answers, forget_answers
from registry.deletion.deletions import check_policy
from registry.deletion.scope import DeletionScope, DeletionSubject, find_affected
from registry.models import Version
from registry.recordings.runs import count_unwritten, forget_runs
from registry.serving.stored_responses import count_responses, forget_responses
from tests.query_counts import record_queries
from tests.registry.conftest import Rows
from tests.registry.deleting import delete, promote_version, with_secrets
from tests.registry.routed import Routed


def _dry_run(rows: Rows, scope: DeletionScope, identifier: str, most: int | None) -> dict[str, Any]:
    with transaction(rows.services.sessions) as session:
        affected = find_affected(session, rows.project_id, DeletionSubject(scope, identifier))
        check_policy(affected, "keep")
        return affected.describe(session, most=most)


def _chain(rows: Rows, length: int) -> list[Version]:
    """Each version learned the data of anna again, and goes on from the one before."""
    versions: list[Version] = []
    for _ in range(length):
        versions.append(rows.version("a", parent=versions[-1] if versions else None))
    return versions


def test_what_a_dry_run_says_is_what_the_deletion_does(rows: Rows) -> None:
    with_secrets(rows)
    rows.task("b")
    chain = _chain(rows, 3)
    rows.version("b", parent=chain[-1])
    rows.version("b")
    promote_version(rows, chain[1])
    Routed(rows).start_canary(4)
    said = _dry_run(rows, "user", "anna-92", None)
    assert said["counts"] == {"suites": 0, "datasets": 1, "jobs": 3, "versions": 4}
    done = delete(rows, "user", "anna-92").deletion
    did = {name: value for name, value in done.affected.items() if name in said}
    assert did == said
    assert len(done.trajectories) == said["trajectories"] == 20


def test_of_many_versions_those_that_serve_are_listed_first(rows: Rows) -> None:
    with_secrets(rows)
    chain = _chain(rows, 6)
    promote_version(rows, chain[1])
    Routed(rows).start_canary(3)
    said = _dry_run(rows, "session", "s1", 3)
    assert said["counts"]["versions"] == 6
    assert [(each["number"], each["aliases"], each["routes"]) for each in said["versions"]] == [
        (2, ["champion"], [1]),
        (3, [], [1]),
        (6, [], []),
    ]
    whole = _dry_run(rows, "session", "s1", None)
    assert [each["number"] for each in whole["versions"]] == [1, 2, 3, 4, 5, 6]
    assert all(each in whole["versions"] for each in said["versions"])


def test_statements_do_not_grow_with_the_versions_and_read_no_reports(rows: Rows) -> None:
    with_secrets(rows)
    chain = _chain(rows, 2)
    counts = []
    for more in (0, 6):
        for _ in range(more):
            chain.append(rows.version("a", parent=chain[-1]))
        with record_queries(rows.services.sessions.kw["bind"]) as sent:
            assert _dry_run(rows, "session", "s1", 100)["counts"]["versions"] == len(chain)
        counts.append(len(sent))
        assert not any("versions.report" in statement for statement in sent)
    assert counts[0] == counts[1]


def test_a_user_may_have_more_sessions_than_a_statement_has_parameters(rows: Rows) -> None:
    """PostgreSQL takes 65,535."""
    sessions = tuple(f"s{n}" for n in range(66_000))
    with transaction(rows.services.sessions) as session:
        assert count_answers(session, rows.project_id, sessions) == (0, 0)
        assert count_responses(session, rows.project_id, sessions, "busy") == 0
        assert count_unwritten(session, rows.project_id, sessions, "busy") == 0
        forget_answers(session, rows.project_id, sessions=sessions, user="busy", trajectory_ids=[])
        forget_runs(session, rows.project_id, [], sessions, "busy")
        forget_responses(session, rows.project_id, sessions, "busy")
