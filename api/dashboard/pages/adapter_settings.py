"""Adapters: making one, and changing the settings of its replay and its gates, with who changed what and why."""

from starlette.responses import Response

from api.dashboard.pages import adapters as pages_of_adapters
from api.dashboard.rendering import show
from api.dashboard.routing import Pages
from api.dashboard.visits import HOME, Visit, go
from api.endpoints import adapters
from api.endpoints.adapters import AdapterChangeIn, AdapterIn
from api.http.idempotency import Idempotency
from memgen.errors import ConfigError

_SETTINGS = pages_of_adapters.SETTINGS

pages = Pages()


@pages.post("/adapters", scope="train", again=pages_of_adapters.index, places={ConfigError: "memory"})
def create(visit: Visit) -> Response:
    settings = {each.name: value for each in _SETTINGS if (value := each.read(visit)) is not None}
    named = {name: visit.text(name) for name in ("name", "description", "strategy")}
    body = AdapterIn.model_validate({**named, "memory": visit.pairs("memory"), **settings})
    once = Idempotency(visit.text("once") or None, f"POST {HOME}/adapters")
    made = adapters.create(body, visit.request, visit.services, visit.caller, once)
    return go(visit, f"{HOME}/adapters/{made.name}", f"The adapter {made.name} is made.")


@pages.get("/adapters/{name}/settings")
def one(visit: Visit, name: str) -> Response:
    adapter = adapters.show(name, visit.services, visit.caller)
    history = adapters.changes(name, visit.services, visit.caller).data
    return show(
        visit,
        "adapter_settings.html",
        adapter=adapter,
        settings=_SETTINGS,
        values={each.name: getattr(adapter, each.name) for each in _SETTINGS},
        history=history[::-1],
    )


@pages.post("/adapters/{name}/settings", scope="promote", again=one)
def change(visit: Visit, name: str) -> Response:
    """Only what differs from what the page showed is changed: what others changed meanwhile stays."""
    moved = [each for each in _SETTINGS if visit.text(each.name) != visit.text(f"was.{each.name}")]
    sent = {each.name: each.read(visit) for each in moved}
    body = AdapterChangeIn.model_validate({**sent, "reason": visit.text("reason")})
    adapters.change(name, body, visit.services, visit.caller)
    return go(visit, f"{HOME}/adapters/{name}/settings", f"The settings of {name} are changed.")
