"""Starting, replacing and ending routes, what they serve, their history, and concurrent callers."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from registry.database import transaction
from registry.errors import (
    AliasNotFound,
    GateNotPassed,
    Invalid,
    InvalidName,
    InvalidRoute,
    RouteEnded,
    RouteNotFound,
    RouteRunning,
    VersionNotFound,
)
from registry.models import Project, Route
from registry.serving.aliases import promote, roll_back
from registry.serving.exposures import check_session_id
from registry.serving.resolution import ServingRequest, resolve
from registry.serving.routes import Terms, list_routes, route_history, weights_of
from registry.versions.records import get_version
from tests.registry.conftest import Rows, refused_as_immutable
from tests.registry.routed import Routed, make_routed


@pytest.fixture
def routed(rows: Rows) -> Routed:
    return make_routed(rows)


def _served(routed: Routed, session_id: str | None, model: str = "bot", completion: str = "c") -> str:
    with transaction(routed.rows.services.sessions) as session:
        return resolve(session, routed.rows.project_id, model, ServingRequest(completion, session_id)).label


def test_an_ab_route_shares_sessions_and_nothing_else(routed: Routed) -> None:
    route = routed.start_ab({3: 0.6, 1: 0.4})
    # The champion is the control, whatever the order.
    assert [(arm.version.number, arm.weight) for arm in route.arms] == [(1, 0.4), (3, 0.6)]
    drawn = [_served(routed, f"s{n}") for n in range(60)]
    assert set(drawn) == {"bot@1", "bot@3"}
    assert drawn == [_served(routed, f"s{n}", completion="another") for n in range(60)]
    assert {_served(routed, None, completion=f"c{n}") for n in range(30)} == {"bot@1", "bot@3"}
    for model, label in {"bot@champion": "bot@1", "bot@2": "bot@2", "base": "base"}.items():
        assert {_served(routed, f"s{n}", model) for n in range(10)} == {label}
    with transaction(routed.rows.services.sessions) as session:
        assert resolve(session, routed.rows.project_id, "bot").label == "bot@1"


def test_ending_a_route_returns_everything_to_the_champion(routed: Routed) -> None:
    routed.start_canary(2)
    assert {_served(routed, f"s{n}") for n in range(30)} == {"bot@1", "bot@2"}
    ended = routed.end(1)
    assert (ended.state, ended.ended_at is not None) == ("ended", True)
    assert {_served(routed, f"s{n}") for n in range(30)} == {"bot@1"}
    with pytest.raises(RouteEnded, match="route 1 of bot was ended at"):
        routed.end(1)
    with pytest.raises(RouteNotFound, match="no route 7"):
        routed.end(7)


def test_one_live_route_at_most_and_replacing_it(routed: Routed) -> None:
    first = routed.start_ab({1: 0.9, 2: 0.1})
    with pytest.raises(RouteRunning, match=r"route 1 \(ab\) of bot is live"):
        routed.start_canary(3)
    before = [_served(routed, f"s{n}") for n in range(200)]
    second = routed.start_ab({1: 0.5, 2: 0.5}, replace=True)
    after = [_served(routed, f"s{n}") for n in range(200)]
    assert (second.number, second.salt) == (2, first.salt)
    assert [route.state for route in (routed.route(1), routed.route(2))] == ["ended", "live"]
    # Only from 1 to 2, and about 0.4 of them.
    moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {("bot@1", "bot@2")}
    assert 50 < len(moved) < 110
    routed.end(2)
    assert routed.start_canary(3).salt != first.salt


def test_history_says_who_when_why_and_can_not_be_changed(routed: Routed) -> None:
    route = routed.start_ab({1: 0.5, 2: 0.5})
    routed.end(1)
    with transaction(routed.rows.services.sessions) as session:
        changes = [(c.kind, c.actor, c.reason, c.evidence) for c in route_history(session, route)]
    assert changes == [
        ("started", "anna", "why", {"weights": {"1": 0.5, "2": 0.5}, "shadow_share": None}),
        ("ended", "anna", "enough", {}),
    ]
    for change in ("level = 0.5", "state = 'live', ended_at = null"):
        refused = pytest.raises(DBAPIError, match="only its end may be written")
        with refused, transaction(routed.rows.services.sessions) as session:
            session.execute(sa.text(f"update routes set {change}"))
    for table, change in {"route_arms": "weight = 1", "route_changes": "actor = 'nobody'"}.items():
        with refused_as_immutable(table), transaction(routed.rows.services.sessions) as session:
            session.execute(sa.text(f"update {table} set {change}"))


def test_weights_sum_to_one_in_the_database_too(routed: Routed) -> None:
    route = routed.start_ab({1: 0.5, 2: 0.5})
    third = sa.text(
        "insert into route_arms (route_id, place, version_id, weight) "
        "select :route, 2, id, 0.1 from versions where number = 3"
    )
    with (
        pytest.raises(DBAPIError, match="weights of a route must sum to one"),
        transaction(routed.rows.services.sessions) as session,
    ):
        session.execute(third, {"route": route.id})
    assert weights_of(routed.route(1)) == {1: 0.5, 2: 0.5}


@pytest.mark.parametrize(
    "weights",
    [{1: 1.0}, {1: 0.5, 2: 0.4}, {1: 1.5, 2: -0.5}, {1: 1.0, 2: 0.0}, {1: float("nan"), 2: 0.5}, {}],
)
def test_bad_weights_are_refused(routed: Routed, weights: dict[int, float]) -> None:
    with pytest.raises(InvalidRoute):
        routed.start_ab(weights)
    assert routed.live() is None


def test_what_a_route_refuses(routed: Routed) -> None:
    with pytest.raises(GateNotPassed, match="rejected"):
        routed.start_ab({1: 0.5, 5: 0.5})
    with pytest.raises(GateNotPassed, match="unchecked"):
        routed.start_canary(6)
    with pytest.raises(VersionNotFound):
        routed.start_canary(9)
    with pytest.raises(InvalidRoute, match="bot@1 is the champion"):
        routed.start_canary(1)
    for share in (0.0, 0.51, float("nan")):
        with pytest.raises(InvalidRoute, match="the canary's share"):
            routed.start_canary(2, share)
    with pytest.raises(InvalidRoute, match="the shadow's share"):
        routed.start_shadow(2, 0.0)
    for terms in (Terms(level=0.0), Terms(level=1.0), Terms(smallest_effect=0.0)):
        with pytest.raises(InvalidRoute):
            routed.start_canary(2, terms=terms)
    with pytest.raises(InvalidName):
        routed.start_canary(2, terms=Terms(reward_source="Not a name"))
    with pytest.raises(InvalidRoute, match="promotion is 'always' on a route of kind canary"):
        routed.start_canary(2, terms=Terms(promotion="always"))
    with pytest.raises(InvalidRoute, match="promotion"):
        routed.start_ab({1: 0.5, 2: 0.5}, terms=Terms(promotion="better"))
    for terms in (Terms(promotion="better", margin=0.1), Terms(margin=0.1)):
        with pytest.raises(InvalidRoute, match="only with 'non_inferior'"):
            routed.start_canary(2, terms=terms)
    for margin in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(InvalidRoute, match="margin"):
            routed.start_canary(2, terms=Terms(promotion="non_inferior", margin=margin))
    assert routed.live() is None


def test_what_a_canary_needs_to_become_the_champion(routed: Routed) -> None:
    """Nothing does unless it is asked for; the margin is the default's, or the one that is given."""
    terms = [Terms(), Terms(promotion="better"), Terms(promotion="non_inferior")]
    for number, chosen in enumerate([*terms, Terms(promotion="non_inferior", margin=0.2)], start=1):
        routed.start_canary(2, terms=chosen)
        routed.end(number)
    found = [(routed.route(number).promotion, routed.route(number).margin) for number in range(1, 5)]
    assert found == [("never", None), ("better", None), ("non_inferior", 0.05), ("non_inferior", 0.2)]


def test_a_route_needs_a_champion(rows: Rows) -> None:
    rows.task("a")
    rows.version("a")
    rows.version("a")
    with pytest.raises(AliasNotFound, match="no champion"):
        Routed(rows).start_ab({1: 0.5, 2: 0.5})


@pytest.mark.parametrize("number", [5, 6])
def test_a_shadow_may_carry_any_version_and_never_answers(routed: Routed, number: int) -> None:
    routed.start_shadow(number, 0.5)
    with transaction(routed.rows.services.sessions) as session:
        found = [resolve(session, routed.rows.project_id, "bot", ServingRequest(f"c{n}", "anna")) for n in range(60)]
    assert {served.label for served in found} == {"bot@1"}
    assert {served.alias for served in found} == {"champion"}
    assert {served.shadow.number if served.shadow else None for served in found} == {None, number}


@pytest.mark.parametrize("kind", ["promote", "roll back"])
def test_moving_the_champion_ends_the_route(routed: Routed, kind: str) -> None:
    routed.move_champion(2)
    routed.start_canary(3)
    if kind == "promote":
        routed.move_champion(3)
    else:
        with transaction(routed.rows.services.sessions) as session:
            roll_back(session, routed.adapter(session), "champion", actor="boss", reason="bad")
    now = "bot@3" if kind == "promote" else "bot@1"
    assert {_served(routed, f"s{n}") for n in range(20)} == {now}
    with transaction(routed.rows.services.sessions) as session:
        last = route_history(session, routed.route(1))[-1]
    assert (last.kind, last.actor) == ("ended", "boss")
    assert last.reason == f"bot@champion moved to version {now[-1]}"
    assert last.evidence["alias_move"] > 0


def test_moving_another_alias_ends_nothing(routed: Routed) -> None:
    routed.start_canary(2)
    with transaction(routed.rows.services.sessions) as session:
        adapter = routed.adapter(session)
        promote(session, adapter, "candidate", get_version(session, adapter, 3), actor="boss", reason="")
    assert routed.live() is not None


def test_of_concurrent_starts_one_wins(routed: Routed) -> None:
    def attempt(number: int) -> bool:
        try:
            routed.start_canary(number)
        except RouteRunning:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(attempt, [2, 3, 4] * 2))
    assert sum(won) == 1
    with transaction(routed.rows.services.sessions) as session:
        assert [r.number for r in list_routes(session, routed.adapter(session))] == [1]


def test_listing_is_newest_first_in_pages(routed: Routed) -> None:
    for _ in range(3):
        routed.start_canary(2)
        routed.end((routed.live() or Route(number=0)).number)
    with transaction(routed.rows.services.sessions) as session:
        adapter = routed.adapter(session)
        assert [r.number for r in list_routes(session, adapter, limit=2)] == [3, 2]
        assert [r.number for r in list_routes(session, adapter, before=2)] == [1]


def test_another_project_sees_no_route(routed: Routed) -> None:
    routed.start_canary(2)
    with transaction(routed.rows.services.sessions) as session:
        other = Project(name=f"p{uuid.uuid4().hex}")
        session.add(other)
        session.flush()
        rows = Rows(routed.rows.services, other.id)
        rows.make_adapter(session)
    assert Routed(rows).live() is None


@pytest.mark.parametrize("session_id", ["", "x" * 513, "a\0b", "\ud800"])
def test_session_ids_that_can_not_be_kept_are_refused(session_id: str) -> None:
    with pytest.raises(Invalid, match="session id"):
        check_session_id(session_id)
