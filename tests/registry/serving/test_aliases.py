"""Promotion, rollback, history, and what concurrent callers see."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import AliasNotFound, GateNotPassed, Invalid, InvalidName, NothingToRollBackTo, StaleAlias
from registry.models import AliasMove, Version
from registry.retention.archiving import archive
from registry.serving.aliases import alias_snapshot, get_alias, history, promote, roll_back
from registry.serving.resolution import resolve
from registry.versions.records import get_version
from registry.versions.state import locked_state, why_not_servable, withdraw
from tests.registry.conftest import Rows


@pytest.fixture
def trained(rows: Rows) -> Rows:
    """Versions 1, 2 and 3 passed; 4 was rejected, 5 not checked."""
    rows.task("a")
    for passed in (True, True, True, False, None):
        rows.version("a", passed=passed)
    return rows


def _promote(rows: Rows, number: int, *, alias: str = "champion", expected: int | None = None) -> AliasMove:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter, lock=True)
        version = session.query(Version).filter_by(adapter_id=adapter.id, number=number).one()
        return promote(session, adapter, alias, version, actor="test", reason="why", expected=expected)


def _roll_back(rows: Rows, *, to: int | None = None, expected: int | None = None) -> int:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter, lock=True)
        move = roll_back(session, adapter, "champion", actor="test", reason="bad", to_number=to, expected=expected)
        return move.to_version.number


def _current(rows: Rows) -> int:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter)
        return get_alias(session, adapter, "champion").version.number


def test_rollback_returns_to_what_served_before(trained: Rows) -> None:
    for number in (1, 2, 3):
        _promote(trained, number)
    assert [_roll_back(trained), _current(trained)] == [2, 2]
    _promote(trained, 3)
    assert _roll_back(trained) == 2
    assert _roll_back(trained) == 1
    with pytest.raises(NothingToRollBackTo, match="is at version 1 and has served no earlier one. Promote another"):
        _roll_back(trained)


def test_rollback_leaves_a_version_that_was_promoted_twice(trained: Rows) -> None:
    for number in (1, 2, 2):
        _promote(trained, number)
    assert _roll_back(trained) == 1
    with pytest.raises(NothingToRollBackTo):
        _roll_back(trained)


def _put_away(rows: Rows, number: int, how: str) -> None:
    with transaction(rows.services.sessions) as session:
        adapter = get_adapter(session, rows.project_id, rows.adapter, lock=True)
        version = get_version(session, adapter, number)
        if how == "archived":
            archive(session, adapter, version, actor="test", reason="old")
        elif how == "withdrawn":
            withdraw(session, version, actor="test", reason="law", evidence={})
        elif how == "purged":
            locked_state(session, version).purged_at = MIDNIGHT
        else:
            session.execute(sa.text("alter table gates disable trigger immutable"))
            forged = sa.text("update gates set passed = false where version_id = :id")
            session.execute(forged, {"id": version.id})
            session.execute(sa.text("alter table gates enable trigger immutable"))


def _evidence(rows: Rows) -> dict[str, Any]:
    """Evidence of the newest move."""
    with transaction(rows.services.sessions) as session:
        return history(session, get_adapter(session, rows.project_id, rows.adapter), "champion")[-1].evidence


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("archived", "bot@2 is archived"),
        ("withdrawn", "bot@2 was withdrawn at"),
        ("purged", "the bytes of bot@2 were removed by retention"),
        ("rejected", "bot@2 is rejected"),
    ],
)
def test_rollback_goes_to_the_last_good_version_and_says_what_it_passed_over(trained: Rows, how: str, why: str) -> None:
    for number in (1, 2, 3):
        _promote(trained, number)
    _put_away(trained, 2, how)
    with pytest.raises(StaleAlias):
        _roll_back(trained, expected=2)
    assert [_roll_back(trained, expected=3), _current(trained)] == [1, 1]
    [skipped] = _evidence(trained)["skipped"]
    assert skipped["version"] == 2
    assert skipped["why"].startswith(why)


def test_rollback_passes_over_a_version_once_and_leaves_the_present_one(trained: Rows) -> None:
    for number in (3, 2, 1, 2, 1, 3):
        _promote(trained, number)
    _put_away(trained, 1, "archived")
    assert _roll_back(trained) == 2
    assert [skipped["version"] for skipped in _evidence(trained)["skipped"]] == [1]
    assert _roll_back(trained) == 3
    assert [skipped["version"] for skipped in _evidence(trained)["skipped"]] == [1]
    with pytest.raises(NothingToRollBackTo, match="version 3"):
        _roll_back(trained)


def test_a_rollback_that_passes_over_nothing_says_nothing_of_it(trained: Rows) -> None:
    for number in (1, 2):
        _promote(trained, number)
    assert _roll_back(trained) == 1
    assert _evidence(trained).keys() == {"undoes"}


def test_without_a_good_version_before_rollback_says_what_it_looked_at(trained: Rows) -> None:
    for number in (1, 2, 3):
        _promote(trained, number)
    _put_away(trained, 1, "archived")
    _put_away(trained, 2, "withdrawn")
    with pytest.raises(NothingToRollBackTo) as refused:
        _roll_back(trained)
    with transaction(trained.services.sessions) as session:
        adapter = get_adapter(session, trained.project_id, trained.adapter)
        reasons = [why_not_servable(session, get_version(session, adapter, number)) for number in (2, 1)]
    assert None not in reasons
    assert f"nothing that served before it may serve now: {reasons[0]}; {reasons[1]}. Promote" in str(refused.value)
    assert _current(trained) == 3


def test_rollback_to_a_named_version(trained: Rows) -> None:
    for number in (1, 2, 3):
        _promote(trained, number)
    assert _roll_back(trained, to=1) == 1
    with pytest.raises(NothingToRollBackTo, match="its history does not lead back to 4"):
        _roll_back(trained, to=4)
    assert _roll_back(trained, to=3) == 3
    with pytest.raises(NothingToRollBackTo):
        _roll_back(trained, to=3)


def test_history_replays_to_the_present(trained: Rows) -> None:
    _promote(trained, 1)
    _promote(trained, 3)
    _roll_back(trained)
    with transaction(trained.services.sessions) as session:
        adapter = get_adapter(session, trained.project_id, "bot")
        moves = [
            (m.kind, m.from_version.number if m.from_version else None, m.to_version.number, m.actor, m.reason)
            for m in history(session, adapter, "champion")
        ]
    assert moves == [
        ("promotion", None, 1, "test", "why"),
        ("promotion", 1, 3, "test", "why"),
        ("rollback", 3, 1, "test", "bad"),
    ]
    assert _current(trained) == 1


@pytest.mark.parametrize(("number", "verdict"), [(4, "rejected"), (5, "unchecked")])
def test_only_a_passed_version_may_be_promoted(trained: Rows, number: int, verdict: str) -> None:
    with pytest.raises(GateNotPassed, match=verdict):
        _promote(trained, number)
    with transaction(trained.services.sessions) as session, pytest.raises(AliasNotFound, match="no alias 'champion'"):
        resolve(session, trained.project_id, "bot")


def test_a_stale_move_is_refused(trained: Rows) -> None:
    _promote(trained, 1, expected=0)
    with pytest.raises(StaleAlias, match="is at version 1, not none as expected"):
        _promote(trained, 2, expected=0)
    _promote(trained, 2, expected=1)
    with pytest.raises(StaleAlias, match="version 2"):
        _roll_back(trained, expected=1)


def test_of_concurrent_moves_with_one_expectation_one_wins(trained: Rows) -> None:
    _promote(trained, 1)

    def attempt(number: int) -> bool:
        try:
            _promote(trained, number, expected=1)
        except StaleAlias:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(attempt, [2, 3] * 4))
    assert sum(won) == 1


def test_concurrent_first_moves_create_one_alias(trained: Rows) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: _promote(trained, n), [1, 2, 3, 1]))
    with transaction(trained.services.sessions) as session:
        adapter = get_adapter(session, trained.project_id, "bot")
        moves = history(session, adapter, "champion")
        assert len(moves) == 4
        assert moves[-1].to_version.number == get_alias(session, adapter, "champion").version.number
        assert [m.from_version_id for m in moves[1:]] == [m.to_version_id for m in moves[:-1]]


def test_models_resolve_to_versions(trained: Rows) -> None:
    _promote(trained, 2)
    _promote(trained, 1, alias="candidate")
    with transaction(trained.services.sessions) as session:
        labels = {
            model: resolve(session, trained.project_id, model).label
            for model in ("base", "bot", "bot@champion", "bot@candidate", "bot@3")
        }
    assert labels == {
        "base": "base",
        "bot": "bot@2",
        "bot@champion": "bot@2",
        "bot@candidate": "bot@1",
        "bot@3": "bot@3",
    }


def test_alias_names_are_checked(trained: Rows) -> None:
    with pytest.raises(InvalidName, match="alias name 'No Good'"):
        _promote(trained, 1, alias="No Good")


MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def moved(trained: Rows) -> Rows:
    """Champion 1 from 00:00, 2 from 01:00, 3 from 02:00, back to 2 at 03:00."""
    for number in (1, 2, 3):
        _promote(trained, number)
    _roll_back(trained)
    with transaction(trained.services.sessions) as session:
        session.execute(sa.text("alter table alias_moves disable trigger immutable"))
        for hour, move in enumerate(session.scalars(sa.select(AliasMove).order_by(AliasMove.seq))):
            move.at = MIDNIGHT + timedelta(hours=hour)
        session.flush()
        session.execute(sa.text("alter table alias_moves enable trigger immutable"))
    return trained


@pytest.mark.parametrize(
    ("minutes", "number", "until_hour"),
    [(0, 1, 1), (59, 1, 1), (60, 2, 2), (150, 3, 3), (180, 2, None), (9999, 2, None)],
)
def test_what_served_at_a_time(moved: Rows, minutes: int, number: int, until_hour: int | None) -> None:
    with transaction(moved.services.sessions) as session:
        adapter = get_adapter(session, moved.project_id, "bot")
        stood = alias_snapshot(session, adapter, "champion", MIDNIGHT + timedelta(minutes=minutes))
        assert stood.move.to_version.number == number
        assert stood.until == (None if until_hour is None else MIDNIGHT + timedelta(hours=until_hour))
        assert stood.route is None
        with pytest.raises(AliasNotFound, match="named no version at 2026-03-01T23:59:00.*first moved at 2026-03-02"):
            alias_snapshot(session, adapter, "champion", MIDNIGHT - timedelta(minutes=1))
        with pytest.raises(AliasNotFound, match="it was never moved"):
            alias_snapshot(session, adapter, "candidate", MIDNIGHT)


def test_rollback_to_a_time(moved: Rows) -> None:
    def back_to(at: datetime, **more: int) -> AliasMove:
        with transaction(moved.services.sessions) as session:
            adapter = get_adapter(session, moved.project_id, "bot", lock=True)
            return roll_back(session, adapter, "champion", actor="test", reason="", to_time=at, **more)

    for hours, why in ((1.5, "stood at version 2, as it does now,"), (-1, "did not exist")):
        with pytest.raises(NothingToRollBackTo, match=why):
            back_to(MIDNIGHT + timedelta(hours=hours))
    with pytest.raises(Invalid, match="to_time"):
        back_to(MIDNIGHT, to_number=1)
    with pytest.raises(StaleAlias):
        back_to(MIDNIGHT, expected=3)
    move = back_to(MIDNIGHT + timedelta(minutes=30))
    assert (move.to_version.number, move.evidence["as_of"]) == (1, "2026-03-02T00:30:00+00:00")
    assert _current(moved) == 1
