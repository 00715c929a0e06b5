"""All routes of the dashboard, in the order in which a path is looked for."""

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

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
from api.dashboard.routing import trouble
from api.dashboard.visits import HOME
from registry.errors import NotFound


async def _nothing_here(request: Request) -> Response:
    error = NotFound("there is no such page; it may have been moved, or its name was mistyped")
    return await run_in_threadpool(trouble, request, {}, error)


ROUTES = (
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
