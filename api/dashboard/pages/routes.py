"""Routes of an adapter: what each version got of the traffic, its rewards with intervals, verdict; start and stop."""

from starlette.responses import Response

from api.dashboard.intervals import Bar, bars_of
from api.dashboard.rendering import show
from api.dashboard.routing import Pages
from api.dashboard.visits import HOME, Visit, go
from api.endpoints import adapters, routes
from api.endpoints.adapters import PromoteIn
from api.endpoints.routes import Arm, RouteEnd, RouteIn
from api.http.idempotency import Idempotency
from registry.errors import GateNotPassed, VersionNotFound, VersionNotServable

pages = Pages()


@pages.get("/adapters/{name}/routes")
def index(visit: Visit, name: str) -> Response:
    found = routes.index(name, visit.services, visit.caller, cursor=visit.request.query_params.get("cursor"), limit=50)
    adapter = adapters.show(name, visit.services, visit.caller)
    return show(visit, "routes.html", adapter=adapter, routes=found.data, next_cursor=found.next_cursor)


@pages.get("/adapters/{name}/routes/{number}")
def one(visit: Visit, name: str, number: int) -> Response:
    route = routes.show(name, number, visit.services, visit.caller)
    results = routes.results(name, number, visit.services, visit.caller)
    adapter = adapters.show(name, visit.services, visit.caller)
    bars: dict[int, Bar] = bars_of(results.arms)
    return show(visit, "route.html", adapter=adapter, route=route, results=results, bars=bars)


@pages.post(
    "/adapters/{name}/routes",
    scope="promote",
    again=index,
    places={VersionNotFound: "version", VersionNotServable: "version", GateNotPassed: "version"},
)
def start(visit: Visit, name: str) -> Response:
    kind, version, share = visit.text("kind"), visit.number("version"), visit.share("share")
    reason = visit.text("reason")
    if kind == "ab":
        champion = visit.number("control")
        weight = 0.5 if share is None else share
        arms = [Arm(version=champion or 0, weight=1 - weight), Arm(version=version or 0, weight=weight)]
        body = RouteIn(kind="ab", arms=arms, reason=reason)
    else:
        body = RouteIn.model_validate({"kind": kind, "version": version, "share": share, "reason": reason})
    once = Idempotency(visit.text("once") or None, f"POST {HOME}/adapters/{{name}}/routes")
    made = routes.create(name, body, visit.services, visit.caller, once)
    return go(visit, f"{HOME}/adapters/{name}/routes/{made.number}", f"Route {made.number} is live.")


@pages.post("/adapters/{name}/routes/{number}/end", scope="promote")
def end(visit: Visit, name: str, number: int) -> Response:
    body = RouteEnd.model_validate({"state": "ended", "reason": visit.text("reason")})
    routes.end(name, number, body, visit.services, visit.caller)
    return go(visit, f"{HOME}/adapters/{name}/routes/{number}", f"Route {number} has ended; the champion answers.")


@pages.post("/adapters/{name}/routes/{number}/promote", scope="promote")
def promote(visit: Visit, name: str, number: int) -> Response:
    """Make a version of the route the champion; the route ends by that if it can't go on."""
    body = PromoteIn.model_validate(
        {
            "version": visit.number("version"),
            "expected_version": visit.number("expected_version"),
            "reason": visit.text("reason") or f"route {number}",
        }
    )
    move = adapters.promote_alias(name, "champion", body, visit.services, visit.caller)
    return go(visit, f"{HOME}/adapters/{name}", f"champion of {name} is version {move.to_version} now.")
