"""The beat applies the retention of adapters that have a loop: a version a night would fill any disk."""

import uuid

import pytest
import sqlalchemy as sa

from registry.adapters import create_adapter, get_adapter
from registry.database import transaction
from registry.loops.plan import LoopPlan
from registry.models import Version, VersionChange, VersionState
from registry.retention.policy import set_policy
from registry.wiring import Services
from tests.registry.conftest import Rows
from tests.registry.loops.looped import Looped, make_looped
from tests.registry.stored_versions import stored_keys
from workers.beat import tick_all


@pytest.fixture
def rows(services: Services, project_id: uuid.UUID) -> Rows:
    built = Rows(services, project_id)
    with transaction(services.sessions) as session:
        built.make_adapter(session)
    return built


def _with_bytes(looped: Looped, *passed: bool) -> list[Version]:
    made = [looped.judge(passed=each) for each in passed]
    for version in made:
        looped.rows.services.store.put(f"{version.artifact_key}/memory.json", b"{}")
    return made


def _left(looped: Looped, versions: list[Version]) -> list[int]:
    """Numbers of the versions that have their bytes, as the store and the rows agree."""
    stored = [each.number for each in versions if stored_keys(looped.rows, each.artifact_key)]
    with transaction(looped.rows.services.sessions) as session:
        purged = session.scalars(sa.select(VersionState.version_id).where(VersionState.purged_at.is_not(None))).all()
    assert stored == [each.number for each in versions if each.id not in purged]
    return stored


def test_old_versions_lose_their_bytes_but_for_what_the_loop_needs(rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(cron="0 3 * * *", keep_last=2, most_failures=20))
    versions = _with_bytes(looped, True, False, False, True, False, False, False)
    assert _left(looped, versions) == [1, 2, 3, 4, 5, 6, 7]
    tick_all(rows.services, lambda _: None)
    assert _left(looped, versions) == [1, 4, 6, 7], "the champion, the canary and the newest two"
    with transaction(rows.services.sessions) as session:
        changes = session.scalars(sa.select(VersionChange)).all()
        assert {(change.kind, change.actor, change.reason) for change in changes} == {("purged", "beat", "retention")}
    tick_all(rows.services, lambda _: None)
    assert _left(looped, versions) == [1, 4, 6, 7]


def test_a_policy_without_a_loop_is_applied_by_hand(rows: Rows) -> None:
    looped = make_looped(rows, LoopPlan(cron="0 3 * * *", keep_last=1))
    with transaction(rows.services.sessions) as session:
        other = create_adapter(session, rows.project_id, name="other", base_model="tiny", base_revision="r1")
        set_policy(session, other, 1, actor="test")
    looped.rows.adapter = "other"
    versions = [rows.version("a", passed=False) for _ in range(3)]
    tick_all(rows.services, lambda _: None)
    with transaction(rows.services.sessions) as session:
        assert get_adapter(session, rows.project_id, "other") is not None
        assert session.scalars(sa.select(VersionState)).all() == []
    assert len(versions) == 3
