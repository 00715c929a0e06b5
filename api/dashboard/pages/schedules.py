"""Schedules: what trains when, what waits, what came of it; pausing and going on."""

from starlette.responses import Response

from api.dashboard.rendering import show
from api.dashboard.routing import Pages
from api.dashboard.visits import HOME, Visit, go
from api.endpoints import schedules
from api.endpoints.schedules import ScheduleChangeIn

pages = Pages()


@pages.get("/schedules")
def index(visit: Visit) -> Response:
    return show(visit, "schedules.html", schedules=schedules.index(visit.services, visit.caller).data)


@pages.get("/schedules/{name}")
def one(visit: Visit, name: str) -> Response:
    return show(
        visit,
        "schedule.html",
        schedule=schedules.show(name, visit.services, visit.caller),
        runs=schedules.runs(name, visit.services, visit.caller, cursor=None, limit=50).data,
        history=schedules.history(name, visit.services, visit.caller).data,
    )


@pages.post("/schedules/{name}/pause", scope="train")
def pause(visit: Visit, name: str) -> Response:
    schedules.change(name, ScheduleChangeIn(paused=True), visit.services, visit.caller)
    return go(visit, f"{HOME}/schedules/{name}", f"{name} is paused.")


@pages.post("/schedules/{name}/resume", scope="train")
def resume(visit: Visit, name: str) -> Response:
    schedules.change(name, ScheduleChangeIn(paused=False), visit.services, visit.caller)
    return go(visit, f"{HOME}/schedules/{name}", f"{name} goes on.")
