"""Dependencies of the endpoints: the services, and the caller.

They are coroutines because they wait for nothing: FastAPI sends other functions through a thread.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from registry.keys import Principal
from registry.wiring import Services

bearer = HTTPBearer(auto_error=False, description="An API key, `mg_...`")


async def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


async def is_head(request: Request) -> bool:
    """Whether only the headers of the answer were asked for: what the answer alone is made for may be left out."""
    return bool(getattr(request.state, "is_head", False))


@dataclass(frozen=True)
class RequiredScope:
    """A dependency: the caller, whose key has `scope`.

    Who it is has been found before the body was read, by `api.http.before_body`, which looks for these dependencies.
    """

    scope: str

    async def __call__(
        self, request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
    ) -> Principal:
        caller: Principal = request.state.caller
        caller.check(self.scope)
        return caller


IsHead = Annotated[bool, Depends(is_head)]
ServicesDep = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(RequiredScope("read"))]
Writer = Annotated[Principal, Depends(RequiredScope("write"))]
Trainer = Annotated[Principal, Depends(RequiredScope("train"))]
Promoter = Annotated[Principal, Depends(RequiredScope("promote"))]
Admin = Annotated[Principal, Depends(RequiredScope("admin"))]
