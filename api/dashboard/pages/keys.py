"""API keys: making one, which is shown once, and revoking."""

import uuid

from starlette.responses import Response

from api.dashboard.rendering import show
from api.dashboard.routing import Pages
from api.dashboard.visits import HOME, Visit, go
from api.endpoints import keys
from api.endpoints.keys import KeyIn
from api.http.idempotency import Idempotency, once
from api.http.schemas import KeyOut
from registry.database import transaction
from registry.errors import Invalid, KeyNotFound
from registry.keys import create_key
from registry.models import SCOPES

pages = Pages()


@pages.get("/keys", scope="admin")
def index(visit: Visit) -> Response:
    return _shown(visit)


@pages.post("/keys", scope="admin", again=index, places={Invalid: "scopes"})
def create(visit: Visit) -> Response:
    """The page itself shows the new key: it is nowhere else, and in no address.

    Nor is it in the reply that is kept for a form that is sent twice, so the second says only that it was made.
    """
    scopes = [scope for scope in SCOPES if visit.text(f"scope.{scope}")]
    body = KeyIn.model_validate({"name": visit.text("name"), "scopes": scopes})
    made: list[str] = []

    def make() -> KeyOut:
        row, key = create_key(session, visit.caller.project_id, body.name, body.scopes)
        made.append(key)
        return KeyOut.of(row)

    sent = Idempotency(visit.text("once") or None, f"POST {HOME}/keys")
    with transaction(visit.services.sessions) as session:
        row = once(session, visit.caller.project_id, sent, body, KeyOut, make)
    return _shown(visit, new=row, key=made[0] if made else "")


@pages.post("/keys/{text}/revoke", scope="admin")
def revoke(visit: Visit, text: str) -> Response:
    try:
        key_id = uuid.UUID(text)
    except ValueError as error:
        raise KeyNotFound(f"this project has no key {text[:60]!r}") from error
    gone = keys.revoke(key_id, visit.services, visit.caller)
    return go(visit, f"{HOME}/keys", f"The key {gone.name} is revoked, and every sign-in with it has ended.")


def _shown(visit: Visit, new: KeyOut | None = None, key: str = "") -> Response:
    found = keys.index(visit.services, visit.caller).data
    return show(visit, "keys.html", keys=found, new=new, key_text=key, scopes=SCOPES)
