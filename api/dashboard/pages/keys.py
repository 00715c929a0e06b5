"""API keys: making one, which is shown once, and revoking."""

import uuid

from starlette.responses import Response

from api.dashboard.rendering import show
from api.dashboard.routing import Pages
from api.dashboard.visits import HOME, Visit, go
from api.endpoints import keys
from api.endpoints.keys import KeyIn
from registry.errors import KeyNotFound
from registry.models import SCOPES

pages = Pages()


@pages.get("/keys", scope="admin")
def index(visit: Visit) -> Response:
    return _shown(visit, made=None)


@pages.post("/keys", scope="admin")
def create(visit: Visit) -> Response:
    """The page itself shows the new key: it is nowhere else, and in no address."""
    scopes = [scope for scope in SCOPES if visit.text(f"scope.{scope}")]
    body = KeyIn.model_validate({"name": visit.text("name"), "scopes": scopes})
    return _shown(visit, made=keys.create(body, visit.services, visit.caller))


@pages.post("/keys/{text}/revoke", scope="admin")
def revoke(visit: Visit, text: str) -> Response:
    try:
        key_id = uuid.UUID(text)
    except ValueError as error:
        raise KeyNotFound(f"this project has no key {text[:60]!r}") from error
    gone = keys.revoke(key_id, visit.services, visit.caller)
    return go(visit, f"{HOME}/keys", f"The key {gone.name} is revoked, and every sign-in with it has ended.")


def _shown(visit: Visit, made: keys.NewKeyOut | None) -> Response:
    found = keys.index(visit.services, visit.caller).data
    return show(visit, "keys.html", keys=found, made=made, scopes=SCOPES)
