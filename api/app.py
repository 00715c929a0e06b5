"""The HTTP application. `api.server` runs it, and drains it in the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from api.dashboard.urls import ROUTES as DASHBOARD
from api.dashboard.urls import refusal
from api.endpoints import (
    adapters,
    analyses,
    bases,
    chat,
    completions,
    deletions,
    feedback,
    gates,
    health,
    jobs,
    judges,
    keys,
    loops,
    messages,
    recordings,
    responses,
    routes,
    runs,
    schedules,
    tasks,
    tokens,
    traces,
    trajectories,
    transfer,
    upstreams,
    versions,
    webhooks,
)
from api.gateway.calls import Gateway
from api.http import problems
from api.http.before_body import BeforeBody
from api.http.cors import Cors
from api.http.drain import ConnectionsEnd, Drain
from api.http.last_resort import LastResort
from api.http.request_log import RequestLog
from api.inference.choose import make_engine
from api.inference.shadows import Shadows
from api.recording.recorder import Recorder
from registry.binding import ServedBase, bind_unbound
from registry.database import transaction
from registry.logs import configure_logs
from registry.settings import Settings, load_settings
from registry.upstreams import load_upstreams
from registry.wiring import Services, open_services
from workers.queue import make_queue

ENDPOINTS = (
    chat,
    completions,
    responses,
    messages,
    traces,
    feedback,
    health,
    keys,
    tasks,
    trajectories,
    recordings,
    runs,
    adapters,
    bases,
    jobs,
    judges,
    routes,
    gates,
    loops,
    schedules,
    versions,
    analyses,
    transfer,
    deletions,
    webhooks,
    upstreams,
)
"""In the order in which a request's path is looked for: those of which agents ask much come first."""


def create_app(settings: Settings | None = None, *, serve_model: bool = True, drain: Drain | None = None) -> FastAPI:
    """The application; connections are made in its lifespan.

    Args:
        serve_model: false leaves the base model unloaded, for an API that only manages.
        drain: how far the process is with leaving, where its server drains it.
    """
    settings = settings or load_settings()
    configure_logs(settings)
    drain = drain or Drain()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.drain = drain
        gateway = Gateway(load_upstreams(settings))
        with open_services(settings) as services:
            inference = make_engine(settings, services.scratch, on_loaded=partial(_bind, services))
            app.state.services, app.state.inference, app.state.gateway = services, inference, gateway
            app.state.shadows = Shadows(inference, services)
            app.state.recorder = Recorder(services, partial(tokens.token_limit, services))
            with make_queue(settings) as app.state.queue:
                if serve_model:
                    inference.start()
                app.state.recorder.start()
                try:
                    yield
                finally:
                    await app.state.shadows.stop()
                    await gateway.close()
                    inference.stop()
                    await run_in_threadpool(app.state.recorder.stop)

    app = FastAPI(
        title="MemGen",
        summary="Continual learning for LLM agents: memories trained on a frozen base, checked before they serve.",
        version="1",
        lifespan=lifespan,
    )
    problems.install(app)
    # As they are: a router that is included builds each of its routes anew, in every application's first request.
    app.router.routes.extend(route for module in ENDPOINTS for route in module.router.routes)
    if settings.dashboard:
        app.router.routes.extend(DASHBOARD)
    # The last one added is the first to see a request.
    app.add_middleware(BeforeBody, routes=app.routes, settings=settings, refuse=refusal if settings.dashboard else None)
    app.add_middleware(LastResort)
    app.add_middleware(ConnectionsEnd, drain=drain)
    if settings.allowed_origins:
        app.add_middleware(Cors, allow_origins=settings.allowed_origins)
    app.add_middleware(RequestLog)
    return app


def _bind(services: Services, base: ServedBase) -> None:
    with transaction(services.sessions) as session:
        bind_unbound(session, base)
