"""Routes: they share the traffic of `model: "adapter"` among versions. Each records who started and ended it, and why.

*A/B* shares sessions by weight among versions that passed their gate. *Canary* gives a small share to one version and
the rest to the champion, and ends by itself when its feedback says so (`registry.serving.canaries`). *Shadow* lets the
champion answer all, and a second version, which need not have passed, answer the same out of band.

An adapter has one live route at most. A route is not changed, only ended: another sharing is another route, which may
replace the live one and then keeps its salt, so that only the sessions move that must. When a route ends, or the
champion moves, everything goes to the champion.
"""

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ScalarResult, Select, func, or_, select
from sqlalchemy.orm import Session, joinedload

from registry.adapters import LARGEST_CANARY
from registry.clock import utc_now
from registry.errors import AliasNotFound, GateNotPassed, InvalidRoute, RouteEnded, RouteNotFound, RouteRunning
from registry.gates.verdict import gate_of, verdict
from registry.models import CANARY_PROMOTIONS, Adapter, Route, RouteArm, RouteChange, Version
from registry.names import check_name
from registry.serving.events import emit_end
from registry.versions.champion import champion
from registry.versions.records import get_version
from registry.versions.state import check_servable

MOST_ARMS = 10
DEFAULT_MARGIN = 0.05


@dataclass(frozen=True)
class Terms:
    """Terms of the comparison of a route's arms."""

    level: float = 0.05
    """Upper bound on the probability of a false alarm, however often the results are read."""
    smallest_effect: float = 0.05
    """Smallest difference of mean rewards that matters."""
    reward_source: str | None = None
    """The only source that counts; None takes the first feedback of any."""
    promotion: str = "never"
    """Result that makes a canary the champion by itself: `better` or `non_inferior`."""
    margin: float | None = None
    """Difference that is too much for `non_inferior`; None takes the default."""


def start_ab(
    session: Session,
    adapter: Adapter,
    weights: Mapping[int, float],
    terms: Terms | None = None,
    *,
    actor: str,
    reason: str,
    replace: bool = False,
) -> Route:
    """Share sessions by `weights` (by version number). The champion, or else the first, is the control.

    Args:
        adapter: locked by the caller, as for all that starts or ends routes.
        replace: end the live route, if there is one, in the same transaction.

    Raises:
        InvalidRoute: fewer than two versions, or weights that are not positive or don't sum to one.
        VersionNotFound, GateNotPassed, RouteRunning, AliasNotFound: there is no champion to fall back on.
    """
    fallback = _champion(session, adapter)
    if not 2 <= len(weights) <= MOST_ARMS:
        raise InvalidRoute(f"an A/B route has {len(weights)} versions; expected 2 to {MOST_ARMS}")
    if not all(0 < weight < 1 for weight in weights.values()) or abs(math.fsum(weights.values()) - 1) > 1e-9:
        raise InvalidRoute(
            f"the weights are {dict(weights)}; expected positive numbers that sum to one, such as 0.5 and 0.5"
        )
    numbers = sorted(weights, key=lambda number: number != fallback.number)
    arms = [(get_version(session, adapter, number), weights[number]) for number in numbers]
    for version, _ in arms:
        _check_passed(session, adapter, version)
    return _start(session, adapter, _Sharing("ab", arms), terms, actor=actor, reason=reason, replace=replace)


def start_canary(
    session: Session,
    adapter: Adapter,
    number: int,
    share: float,
    terms: Terms | None = None,
    *,
    actor: str,
    reason: str,
    replace: bool = False,
) -> Route:
    """Give `share` of the sessions to a version that passed its gate, the champion the rest. Raises as `start_ab`."""
    stable = _champion(session, adapter)
    version = _challenger(session, adapter, number, stable)
    if not 0 < share <= LARGEST_CANARY:
        raise InvalidRoute(f"the canary's share is {share}; expected more than 0 and at most {LARGEST_CANARY}")
    _check_passed(session, adapter, version)
    sharing = _Sharing("canary", [(stable, 1 - share), (version, share)])
    return _start(session, adapter, sharing, terms, actor=actor, reason=reason, replace=replace)


def start_shadow(
    session: Session,
    adapter: Adapter,
    number: int,
    share: float,
    terms: Terms | None = None,
    *,
    actor: str,
    reason: str,
    replace: bool = False,
) -> Route:
    """Let a version, whatever its verdict, answer `share` of the requests too; its answers are compared and discarded.
    Raises as `start_ab`."""
    main = _champion(session, adapter)
    version = _challenger(session, adapter, number, main)
    if not 0 < share <= 1:
        raise InvalidRoute(f"the shadow's share is {share}; expected more than 0 and at most 1")
    sharing = _Sharing("shadow", [(main, 1.0), (version, 0.0)], shadow_share=share)
    return _start(session, adapter, sharing, terms, actor=actor, reason=reason, replace=replace)


def end_route(session: Session, adapter: Adapter, number: int, *, actor: str, reason: str) -> Route:
    """Raises RouteNotFound, RouteEnded."""
    route = get_route(session, adapter, number, lock=True)
    if route.state != "live":
        raise RouteEnded(f"route {number} of {adapter.name} was {route.state} at {route.ended_at:%Y-%m-%d %H:%M} UTC")
    return close_route(session, route, "ended", actor=actor, reason=reason, evidence={})


def end_live_route(
    session: Session, adapter: Adapter, *, actor: str, reason: str, evidence: Mapping[str, Any]
) -> Route | None:
    """End the adapter's live route; None if there is none."""
    route = live_route(session, adapter, lock=True)
    if route is None:
        return None
    return close_route(session, route, "ended", actor=actor, reason=reason, evidence=evidence)


def close_route(
    session: Session, route: Route, state: str, *, actor: str, reason: str, evidence: Mapping[str, Any]
) -> Route:
    """End a live route, whose lock the caller holds: the next request goes to the champion."""
    route.state, route.ended_at = state, utc_now()
    change = RouteChange(route_id=route.id, kind=state, actor=actor, reason=reason, evidence=dict(evidence))
    session.add(change)
    session.flush()
    emit_end(session, route, change)
    return route


def live_route(session: Session, adapter: Adapter, *, lock: bool = False) -> Route | None:
    """The adapter's live route, with its arms and their versions."""
    query = select(Route).where(Route.adapter_id == adapter.id, Route.state == "live")
    return _routes(session, query, lock=lock).one_or_none()


def route_at(session: Session, adapter: Adapter, at: datetime) -> Route | None:
    """The route that was live at a time, with its arms and their versions."""
    ended = or_(Route.ended_at.is_(None), Route.ended_at > at)
    query = select(Route).where(Route.adapter_id == adapter.id, Route.created_at <= at, ended)
    return _routes(session, query).first()


def get_route(session: Session, adapter: Adapter, number: int, *, lock: bool = False) -> Route:
    """The route of that number, with its arms and their versions. Raises RouteNotFound."""
    query = select(Route).where(Route.adapter_id == adapter.id, Route.number == number)
    found = _routes(session, query, lock=lock).one_or_none()
    if found is None:
        raise RouteNotFound(f"adapter {adapter.name!r} has no route {number}")
    return found


def lock_route(session: Session, route_id: uuid.UUID) -> Route:
    """The route's current row, locked: feedback and the end of a route wait for each other; answers don't wait.

    Feedback on a live canary may move the champion, so the adapter is locked too, and first, as in every function that
    moves an alias. The kind and the end of a route never change, so reading them before the lock is safe.
    """
    route = session.get_one(Route, route_id)
    if route.kind == "canary" and route.state == "live":
        # Not the key: rows that refer to the adapter need not wait.
        session.get_one(Adapter, route.adapter_id, with_for_update={"key_share": True})
    return _routes(session, select(Route).where(Route.id == route_id), lock=True).one()


def list_routes(session: Session, adapter: Adapter, *, before: int | None = None, limit: int = 50) -> list[Route]:
    """Newest first, below the number `before`."""
    query = select(Route).where(Route.adapter_id == adapter.id)
    if before is not None:
        query = query.where(Route.number < before)
    return list(_routes(session, query.order_by(Route.number.desc()).limit(limit)))


def route_history(session: Session, route: Route) -> list[RouteChange]:
    """Oldest first."""
    query = select(RouteChange).where(RouteChange.route_id == route.id)
    return list(session.scalars(query.order_by(RouteChange.seq)))


def weights_of(route: Route) -> dict[int, float]:
    """Share of the sessions by version number."""
    return {arm.version.number: arm.weight for arm in route.arms}


@dataclass(frozen=True)
class _Sharing:
    """The versions of a route to start, with each one's part of the traffic."""

    kind: str
    arms: Sequence[tuple[Version, float]]
    """(version, weight), the control first."""
    shadow_share: float | None = None


def _start(
    session: Session,
    adapter: Adapter,
    sharing: _Sharing,
    terms: Terms | None,
    *,
    actor: str,
    reason: str,
    replace: bool,
) -> Route:
    terms = terms or Terms()
    _check_terms(sharing.kind, terms)
    for version, _ in sharing.arms:
        check_servable(session, version)
    replaced = live_route(session, adapter, lock=True)
    if replaced is not None:
        if not replace:
            raise RouteRunning(
                f"route {replaced.number} ({replaced.kind}) of {adapter.name} is live; end it first, or ask to "
                "replace it"
            )
        close_route(session, replaced, "ended", actor=actor, reason=reason, evidence={"replaced": True})
    newest = session.scalar(select(func.coalesce(func.max(Route.number), 0)).where(Route.adapter_id == adapter.id))
    route = Route(
        adapter_id=adapter.id,
        number=(newest or 0) + 1,
        kind=sharing.kind,
        state="live",
        # With the salt of the one before, only the sessions move that must.
        salt=replaced.salt if replaced else uuid.uuid4().hex,
        shadow_share=sharing.shadow_share,
        level=terms.level,
        smallest_effect=terms.smallest_effect,
        reward_source=terms.reward_source,
        promotion=terms.promotion,
        margin=(terms.margin or DEFAULT_MARGIN) if terms.promotion == "non_inferior" else None,
        arms=[RouteArm(place=n, version=version, weight=weight) for n, (version, weight) in enumerate(sharing.arms)],
    )
    session.add(route)
    session.flush()
    weights = {str(version.number): weight for version, weight in sharing.arms}
    evidence = {"weights": weights, "shadow_share": sharing.shadow_share}
    session.add(RouteChange(route_id=route.id, kind="started", actor=actor, reason=reason, evidence=evidence))
    session.flush()
    return route


def _champion(session: Session, adapter: Adapter) -> Version:
    found = champion(session, adapter)
    if found is None:
        raise AliasNotFound(
            f"adapter {adapter.name!r} has no champion, which answers once a route ends; promote a version first"
        )
    return found


def _challenger(session: Session, adapter: Adapter, number: int, stable: Version) -> Version:
    version = get_version(session, adapter, number)
    if version.id == stable.id:
        raise InvalidRoute(f"{adapter.name}@{number} is the champion; expected another version to try beside it")
    return version


def _check_passed(session: Session, adapter: Adapter, version: Version) -> None:
    gate = gate_of(session, version)
    if verdict(gate) != "passed":
        raise GateNotPassed(
            f"{adapter.name}@{version.number} is {verdict(gate)}; only a version that passed its gate may answer on a "
            "route. A shadow may carry any."
        )


def _check_terms(kind: str, terms: Terms) -> None:
    if not 0 < terms.level < 1 or not 0 < terms.smallest_effect <= 1:
        raise InvalidRoute(
            f"level is {terms.level} and smallest_effect {terms.smallest_effect}; expected (0, 1) and (0, 1]"
        )
    if terms.promotion not in CANARY_PROMOTIONS or (kind != "canary" and terms.promotion != "never"):
        raise InvalidRoute(
            f"promotion is {terms.promotion!r} on a route of kind {kind}; expected one of {list(CANARY_PROMOTIONS)}, "
            "and 'never' but for a canary"
        )
    if terms.margin is not None and (terms.promotion != "non_inferior" or not 0 < terms.margin < 1):
        raise InvalidRoute(
            f"margin is {terms.margin} and promotion {terms.promotion!r}; expected a margin in (0, 1), and only with "
            "'non_inferior'"
        )
    if terms.reward_source is not None:
        check_name("reward source", terms.reward_source)


def _routes(session: Session, query: Select[Route], *, lock: bool = False) -> ScalarResult[Route]:
    """The routes of a query, with their arms and versions."""
    query = query.options(joinedload(Route.arms).joinedload(RouteArm.version), joinedload(Route.adapter))
    if lock:
        # Not the key: exposures refer to the route, and must not wait for feedback on others.
        query = query.with_for_update(of=Route, key_share=True).execution_options(populate_existing=True)
    return session.scalars(query).unique()
