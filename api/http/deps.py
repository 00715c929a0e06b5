"""Dependencies of the endpoints: the services, and the caller."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from registry.database import transaction
from registry.errors import UnknownKey
from registry.keys import Principal, authenticate
from registry.wiring import Services

bearer = HTTPBearer(auto_error=False, description="An API key, `mg_...`")


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


def require(scope: str) -> Callable[..., Principal]:
    """A dependency: the caller, whose key must have `scope`."""

    def principal(
        services: Annotated[Services, Depends(services)],
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> Principal:
        if credentials is None:
            raise UnknownKey("no API key was sent; send `Authorization: Bearer <key>`")
        # Its own short read: authentication must not hold a connection while the endpoint works.
        with transaction(services.sessions) as session:
            found = authenticate(session, credentials.credentials)
        found.check(scope)
        return found

    return principal


ServicesDep = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("read"))]
Writer = Annotated[Principal, Depends(require("write"))]
Trainer = Annotated[Principal, Depends(require("train"))]
Promoter = Annotated[Principal, Depends(require("promote"))]
Admin = Annotated[Principal, Depends(require("admin"))]
