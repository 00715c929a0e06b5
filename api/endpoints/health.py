"""Liveness and readiness."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from sqlalchemy import text

from api.http.deps import ServicesDep
from api.http.drain import Drain
from api.http.problems import RETRY_SECONDS
from registry.database import transaction
from registry.wiring import Services

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers. Needs no thread, so that it says so while all of them are busy."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(request: Request, services: ServicesDep) -> JSONResponse:
    """Every part is reachable, the model is loaded and the process stays; 503 with the reasons if not."""
    checks: dict[str, Callable[[], Any]] = {
        "database": lambda: _check_database(services),
        "store": services.store.ping,
        "broker": lambda: _check_broker(request),
        "model": request.app.state.inference.check_ready,
    }
    results = {name: _result(check) for name, check in checks.items()}
    drain: Drain = request.app.state.drain
    results["process"] = "stopping" if drain.has_begun else "ok"
    ready = all(result == "ok" for result in results.values())
    if ready:
        return JSONResponse({"status": "ready", "checks": results})
    return JSONResponse({"status": "not ready", "checks": results}, 503, headers={"Retry-After": str(RETRY_SECONDS)})


def _result(check: Callable[[], Any]) -> str:
    try:
        check()
    except Exception as error:  # whatever is wrong with a part, readiness reports it
        return f"{type(error).__name__}: {error}"
    return "ok"


def _check_database(services: Services) -> None:
    with transaction(services.sessions) as session:
        session.execute(text("select 1"))


def _check_broker(request: Request) -> None:
    with request.app.state.queue.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, timeout=2)
