"""All routes of the dashboard, in the order in which a path is looked for."""

from fastapi.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from api.dashboard.pages import (
    adapter_settings,
    adapters,
    analyses,
    deletions,
    feedback,
    jobs,
    judges,
    keys,
    loops,
    overview,
    playground,
    recordings,
    routes,
    schedules,
    sign_in,
    tasks,
    trajectories,
    versions,
)
from api.dashboard.rendering import Harmless
from api.dashboard.routing import trouble
from api.dashboard.visits import HOME, own_path
from registry.errors import NotFound


async def _nothing_here(request: Request) -> Response:
    path = request.url.path
    if path.endswith("/"):
        return RedirectResponse(own_path(path.rstrip("/")), status_code=307)
    error = NotFound("there is no such page; it may have been moved, or its name was mistyped")
    return await run_in_threadpool(trouble, request, {}, error)


async def refusal(request: Request, error: Exception) -> ASGIApp | None:
    """A page for a person whose request is refused before it comes to a route; None for others' requests."""
    inside = request.scope["path"].startswith(f"{HOME}/")
    if not inside or "text/html" not in request.headers.get("accept", ""):
        return None
    return Harmless(await run_in_threadpool(trouble, request, {}, error))


_ROUTES = (
    *sign_in.routes,
    *overview.pages.routes,
    *adapters.pages.routes,
    *adapter_settings.pages.routes,
    *versions.pages.routes,
    *analyses.pages.routes,
    *routes.pages.routes,
    *jobs.routes,
    *loops.pages.routes,
    *trajectories.routes,
    *playground.routes,
    *schedules.pages.routes,
    *tasks.pages.routes,
    *judges.pages.routes,
    *feedback.pages.routes,
    *recordings.pages.routes,
    *deletions.pages.routes,
    *keys.pages.routes,
    Route(f"{HOME}/{{path:path}}", _nothing_here, methods=["GET"], name="dashboard.nothing"),
)

ROUTES = tuple(
    Route(route.path, route.endpoint, methods=route.methods, name=route.name, middleware=[Middleware(Harmless)])
    for route in _ROUTES
)
