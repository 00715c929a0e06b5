"""Upstreams: which there are for a project, and whether they can be used. Their file is the operator's."""

from dataclasses import asdict

from fastapi import APIRouter, Request
from pydantic import BaseModel

from api.endpoints.upstream_chat import allowed_upstreams
from api.gateway.calls import Gateway
from api.gateway.checking import UpstreamCheck, check_upstream
from api.http.deps import Admin, Reader, ServicesDep
from registry.errors import UpstreamNotFound
from registry.json_text import show
from registry.upstreams import Upstream

router = APIRouter(prefix="/v1/upstreams", tags=["upstreams"])


class UpstreamOut(BaseModel):
    name: str
    models: list[str]
    """What may be requested of it, as the upstream calls it; `*` is any model."""
    has_key: bool
    max_concurrent: int
    requests: int
    """Requests that are with it now, of the process that answers this."""

    @classmethod
    def of(cls, upstream: Upstream, gateway: Gateway) -> "UpstreamOut":
        return cls(
            name=upstream.name,
            models=list(upstream.models),
            has_key=upstream.has_key,
            max_concurrent=upstream.max_concurrent,
            requests=gateway.requests(upstream),
        )


class UpstreamList(BaseModel):
    data: list[UpstreamOut]


class UpstreamCheckOut(BaseModel):
    name: str
    ok: bool
    detail: str
    seconds: float
    models: int | None
    """How many models it lists; null where it lists none."""
    missing: list[str]
    """Models that may be requested and that it does not list."""

    @classmethod
    def of(cls, check: UpstreamCheck) -> "UpstreamCheckOut":
        return cls(**asdict(check))


@router.get("")
def index(request: Request, services: ServicesDep, caller: Reader) -> UpstreamList:
    """The upstreams that the project may use, in the order of their file."""
    gateway: Gateway = request.app.state.gateway
    found = allowed_upstreams(gateway, services, caller)
    return UpstreamList(data=[UpstreamOut.of(upstream, gateway) for upstream in found.values()])


@router.post("/{name}/check")
def check(name: str, request: Request, services: ServicesDep, caller: Admin) -> UpstreamCheckOut:
    """Ask an upstream for its models, with its key, from where the API runs. No model answers."""
    found = allowed_upstreams(request.app.state.gateway, services, caller)
    if name not in found:
        raise UpstreamNotFound(f"no upstream {show(name)}; there are: {', '.join(found) or 'none'}")
    return UpstreamCheckOut.of(check_upstream(found[name]))
