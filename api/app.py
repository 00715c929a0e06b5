"""The HTTP application: `uvicorn api.app:create_app --factory`."""

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI, Request, Response

from api import problems
from api.endpoints import adapters, chat, health, jobs, keys, tasks, trajectories
from api.inference import Inference
from registry.logs import configure_logs
from registry.settings import Settings, load_settings
from registry.wiring import open_services
from workers.queue import make_queue

log = structlog.get_logger()


def create_app(settings: Settings | None = None, *, serve_model: bool = True) -> FastAPI:
    """The application; connections are made in its lifespan.

    Args:
        serve_model: false leaves the base model unloaded, for an API that only manages.
    """
    settings = settings or load_settings()
    configure_logs(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with open_services(settings) as services:
            inference = Inference(settings)
            app.state.services, app.state.inference = services, inference
            with make_queue(settings) as app.state.queue:
                if serve_model:
                    inference.start()
                try:
                    yield
                finally:
                    inference.stop()

    app = FastAPI(
        title="MemGen",
        summary="Continual learning for LLM agents: memories trained on a frozen base, checked before they serve.",
        version="1",
        lifespan=lifespan,
    )
    problems.install(app)
    app.middleware("http")(_log_request)
    for module in (health, keys, tasks, trajectories, adapters, jobs, chat):
        app.include_router(module.router)
    return app


async def _log_request(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    request_id = request.headers.get("X-Request-ID") or uuid.uuid4().hex
    started = time.perf_counter()
    with structlog.contextvars.bound_contextvars(request=request_id):
        response = await call_next(request)
        response.headers["X-Request-ID"] = request_id
        log.info(
            "request",
            method=request.method,
            path=request.url.path,
            status=response.status_code,
            seconds=round(time.perf_counter() - started, 4),
        )
    return response
