"""Loops: one screen that says what was recorded, rewarded, trained, judged, tried, promoted, and why not."""

from starlette.responses import Response

from api.dashboard.rendering import show
from api.dashboard.routing import Pages
from api.dashboard.visits import HOME, Visit, go
from api.endpoints import loops

pages = Pages()


@pages.get("/loops")
def index(visit: Visit) -> Response:
    return show(visit, "loops.html", loops=loops.index(visit.services, visit.caller).data)


@pages.get("/loops/{name}")
def one(visit: Visit, name: str) -> Response:
    return show(visit, "loop.html", loop=loops.show(name, visit.services, visit.caller))


@pages.post("/loops/{name}/pause", scope="train")
def pause(visit: Visit, name: str) -> Response:
    loops.pause(name, visit.services, visit.caller)
    return go(visit, f"{HOME}/loops/{name}", f"The loop of {name} is paused.")


@pages.post("/loops/{name}/resume", scope="train")
def resume(visit: Visit, name: str) -> Response:
    loops.resume(name, visit.services, visit.caller)
    return go(visit, f"{HOME}/loops/{name}", f"The loop of {name} goes on.")
