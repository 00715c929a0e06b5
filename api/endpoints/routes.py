"""Routes of an adapter: A/B, canary, shadow; their history and results."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from api.http.deps import Promoter, Reader, ServicesDep
from api.http.idempotency import IdempotencyDep, once
from api.http.pagination import Cursor, Page, PageLimit, decode_cursor, make_page
from api.http.schemas import Strict
from api.http.values import Number
from registry.adapters import get_adapter
from registry.database import transaction
from registry.errors import InvalidRoute
from registry.models import Adapter, Route
from registry.serving.confidence_sequence import Interval
from registry.serving.results import ArmResult, RouteResults, ShadowResult, results_of
from registry.serving.routes import (
    DEFAULT_MARGIN,
    Terms,
    end_route,
    get_route,
    list_routes,
    route_history,
    start_ab,
    start_canary,
    start_shadow,
)

router = APIRouter(prefix="/v1/adapters/{name}/routes", tags=["routes"])

_CANARY_SHARE = 0.05
_SHADOW_SHARE = 1.0


class Arm(Strict):
    version: Number
    weight: Annotated[float, Field(description="Share of the sessions; all sum to one")]


class RouteIn(Strict):
    kind: Literal["ab", "canary", "shadow"]
    arms: Annotated[
        list[Arm] | None, Field(description="ab: its versions; the champion, or else the first, is the control")
    ] = None
    version: Annotated[Number | None, Field(description="canary, shadow: the version to try beside the champion")] = (
        None
    )
    share: Annotated[
        float | None,
        Field(
            description=f"canary: of sessions, default {_CANARY_SHARE}; shadow: of answers, default {_SHADOW_SHARE:g}"
        ),
    ] = None
    level: Annotated[float, Field(description="Most probability of a false alarm, however often one looks")] = 0.05
    smallest_effect: Annotated[float, Field(description="Difference of mean rewards below which you would not act")] = (
        0.05
    )
    reward_source: Annotated[str | None, Field(description="The only source of feedback that counts; default: any")] = (
        None
    )
    promotion: Annotated[
        Literal["never", "better", "non_inferior"],
        Field(description="canary: what its rewards must show for it to become the champion by itself"),
    ] = "never"
    margin: Annotated[
        float | None,
        Field(description=f"of non_inferior: how much worse is too much, default {DEFAULT_MARGIN}"),
    ] = None
    replace: Annotated[bool, Field(description="End the live route; sessions move only where they must")] = False
    reason: Annotated[str, Field(max_length=2000)] = ""


class _RouteRequest(BaseModel):
    """What is the same request for an Idempotency-Key: the adapter of the path with the body."""

    adapter: str
    route: RouteIn


class RouteEnd(Strict):
    state: Literal["ended"]
    reason: Annotated[str, Field(max_length=2000)] = ""


class RouteChangeOut(BaseModel):
    kind: str
    actor: str
    reason: str
    evidence: dict[str, Any]
    at: datetime


class RouteOut(BaseModel):
    adapter: str
    number: int
    kind: str
    state: str
    """`live`, `ended` by a person or a move of the champion, `stopped` or `promoted` by the canary's own test."""
    arms: list[Arm]
    """The others are compared with the first; a shadow has weight 0."""
    shadow_share: float | None
    level: float
    smallest_effect: float
    reward_source: str | None
    promotion: str
    """What a canary's rewards must show for it to become the champion by itself: never, better or non_inferior."""
    margin: float | None
    """Margin of non_inferior; null for other promotions."""
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, row: Route) -> "RouteOut":
        return cls(
            adapter=row.adapter.name,
            number=row.number,
            kind=row.kind,
            state=row.state,
            arms=[Arm(version=arm.version.number, weight=arm.weight) for arm in row.arms],
            shadow_share=row.shadow_share,
            level=row.level,
            smallest_effect=row.smallest_effect,
            reward_source=row.reward_source,
            promotion=row.promotion,
            margin=row.margin,
            created_at=row.created_at,
            ended_at=row.ended_at,
        )


class RouteDetail(RouteOut):
    history: list[RouteChangeOut]
    """Oldest first: who, when, why, on what evidence."""


class IntervalOut(BaseModel):
    low: float
    high: float

    @classmethod
    def of(cls, interval: Interval) -> "IntervalOut":
        return cls(low=interval.low, high=interval.high)


class DifferenceOut(BaseModel):
    verdict: Literal["better", "worse", "not yet"]
    estimate: float | None
    interval: IntervalOut
    """Valid at all times at once, however often one looks."""
    non_inferior: bool | None
    """Whether the interval lies above minus the route's margin; null where the route has none."""


class ArmOut(BaseModel):
    version: int
    weight: float
    exposures: int
    feedback: int
    sessions: int
    """Number of rewarded sessions; each counts once, by its first feedback."""
    mean: float | None
    interval: IntervalOut
    difference: DifferenceOut | None
    """Difference from the first arm; null for that arm itself."""
    sessions_needed: int
    """Further rewarded sessions until a verdict, or non-inferiority, can be expected."""

    @classmethod
    def of(cls, arm: ArmResult) -> "ArmOut":
        found = arm.difference
        return cls(
            version=arm.version,
            weight=arm.weight,
            exposures=arm.exposures,
            feedback=arm.feedback,
            sessions=arm.sessions,
            mean=arm.mean,
            interval=IntervalOut.of(arm.interval),
            difference=DifferenceOut(
                verdict=found.verdict,
                estimate=found.estimate,
                interval=IntervalOut.of(found.interval),
                non_inferior=found.non_inferior,
            )
            if found
            else None,
            sessions_needed=arm.sessions_needed,
        )


class Compared(BaseModel):
    returned: float
    shadow: float


class ShadowOut(BaseModel):
    answers: int
    failed: int
    same: float | None
    same_interval: IntervalOut
    similarity: float | None
    seconds: Compared | None
    tokens: Compared | None
    last_error: str | None

    @classmethod
    def of(cls, row: ShadowResult) -> "ShadowOut":
        return cls(
            answers=row.answers,
            failed=row.failed,
            same=row.same,
            same_interval=IntervalOut.of(row.same_interval),
            similarity=row.similarity,
            seconds=Compared(returned=row.seconds[0], shadow=row.seconds[1]) if row.seconds else None,
            tokens=Compared(returned=row.tokens[0], shadow=row.tokens[1]) if row.tokens else None,
            last_error=row.last_error,
        )


class ResultsOut(BaseModel):
    route: RouteOut
    arms: list[ArmOut]
    shadow: ShadowOut | None

    @classmethod
    def of(cls, route: Route, found: RouteResults) -> "ResultsOut":
        return cls(
            route=RouteOut.of(route),
            arms=[ArmOut.of(arm) for arm in found.arms],
            shadow=ShadowOut.of(found.shadow) if found.shadow else None,
        )


@router.post("", status_code=201)
def create(name: str, body: RouteIn, services: ServicesDep, caller: Promoter, idempotency: IdempotencyDep) -> RouteOut:
    """Start a route; requests for the model `{name}` go by it from the next one on."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name, lock=True)
        return once(
            session,
            caller.project_id,
            idempotency,
            _RouteRequest(adapter=name, route=body),
            RouteOut,
            lambda: RouteOut.of(_start(session, adapter, body, caller.actor)),
        )


@router.get("")
def index(
    name: str, services: ServicesDep, caller: Reader, cursor: Cursor = None, limit: PageLimit = 50
) -> Page[RouteOut]:
    """Newest first."""
    before = decode_cursor(cursor) if cursor else None
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name)
        rows = list_routes(session, adapter, before=before, limit=limit + 1)
        return make_page(rows, limit, seq=lambda row: row.number, render=RouteOut.of)


@router.get("/{number}")
def show(name: str, number: Number, services: ServicesDep, caller: Reader) -> RouteDetail:
    with transaction(services.sessions) as session:
        return _detail(session, get_route(session, get_adapter(session, caller.project_id, name), number))


@router.patch("/{number}")
def end(name: str, number: Number, body: RouteEnd, services: ServicesDep, caller: Promoter) -> RouteDetail:
    """End a live route: the next request goes to the champion. Answers end on the version they began with."""
    with transaction(services.sessions) as session:
        adapter = get_adapter(session, caller.project_id, name, lock=True)
        return _detail(session, end_route(session, adapter, number, actor=caller.actor, reason=body.reason))


@router.get("/{number}/results")
def results(name: str, number: Number, services: ServicesDep, caller: Reader) -> ResultsOut:
    """May be looked at at any time: the intervals and verdicts hold for all looks together."""
    with transaction(services.sessions) as session:
        route = get_route(session, get_adapter(session, caller.project_id, name), number)
        return ResultsOut.of(route, results_of(session, route))


def _start(session: Session, adapter: Adapter, body: RouteIn, actor: str) -> Route:
    terms = Terms(body.level, body.smallest_effect, body.reward_source, body.promotion, body.margin)
    if body.kind == "ab":
        if body.arms is None or body.version is not None or body.share is not None:
            raise InvalidRoute(
                "an ab route takes `arms`, each with `version` and `weight`, and no `version` or `share`"
            )
        weights = {arm.version: arm.weight for arm in body.arms}
        if len(weights) < len(body.arms):
            raise InvalidRoute(f"arms name the versions {[arm.version for arm in body.arms]}; expected each one once")
        return start_ab(session, adapter, weights, terms, actor=actor, reason=body.reason, replace=body.replace)
    if body.version is None or body.arms is not None:
        raise InvalidRoute(f"a {body.kind} route takes `version` and `share`, and no `arms`")
    start, share = (start_canary, _CANARY_SHARE) if body.kind == "canary" else (start_shadow, _SHADOW_SHARE)
    share = share if body.share is None else body.share
    return start(session, adapter, body.version, share, terms, actor=actor, reason=body.reason, replace=body.replace)


def _detail(session: Session, route: Route) -> RouteDetail:
    history = [
        RouteChangeOut(kind=row.kind, actor=row.actor, reason=row.reason, evidence=row.evidence, at=row.at)
        for row in route_history(session, route)
    ]
    return RouteDetail(**RouteOut.of(route).model_dump(), history=history)
