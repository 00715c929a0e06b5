"""Requests whose `model` is an upstream's, `strong/gpt-5`: forwarded from `/v1/chat/completions`, refused elsewhere.

Such a body is the upstream's to judge, whose API may have fields that this service has not. So it branches off before
the body is read as one of ours.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError

from api.endpoints.answering import timeout_seconds
from api.endpoints.chat_reply import new_completion_id
from api.gateway.answers import UpstreamAnswer
from api.gateway.calls import Gateway, UpstreamCall
from api.gateway.passing import Listener, pass_through
from api.gateway.refusals import UpstreamRefused
from api.http.json_object import JsonObject
from api.recording.asking import read_ask
from api.recording.upstream_answers import UpstreamRecording, UpstreamRequest, sample_key, texts_of
from registry.database import reading, transaction
from registry.errors import Invalid, NotForUpstreams
from registry.json_text import show
from registry.keys import Principal, project_name
from registry.names import MAX_SESSION_CHARACTERS
from registry.recordings.policies import decide
from registry.serving.exposures import check_session_id, record_upstream_exposure
from registry.upstreams import Upstreams, find_upstream, is_upstream_model
from registry.wiring import Services

log = structlog.get_logger()

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _BranchingRoute(APIRoute):
    """A route whose POST may be for an upstream's model."""

    async def answer_upstream(self, request: Request, body: JsonObject) -> Response:
        raise NotImplementedError

    def get_route_handler(self) -> Handler:
        own = super().get_route_handler()

        async def handle(request: Request) -> Response:
            body = await _body(request)
            if body is not None and isinstance(model := body.get("model"), str) and is_upstream_model(model):
                return await self.answer_upstream(request, body)
            return await own(request)

        return handle if "POST" in (self.methods or ()) else own


class ForwardingRoute(_BranchingRoute):
    """A route that forwards requests for upstreams' models."""

    async def answer_upstream(self, request: Request, body: JsonObject) -> Response:
        return await _forward(request, body)


class OwnModelsRoute(_BranchingRoute):
    """A route that serves this service's own models only."""

    async def answer_upstream(self, request: Request, body: JsonObject) -> Response:
        raise NotForUpstreams(
            f"model: {show(body['model'])} is an upstream's, and {self.path} serves `base` and adapters only; "
            "expected the request on /v1/chat/completions"
        )


def allowed_upstreams(gateway: Gateway, services: Services, caller: Principal) -> Upstreams:
    """The upstreams that the caller's project may use."""
    if not any(upstream.projects for upstream in gateway.upstreams.values()):
        return gateway.upstreams
    with reading(services.sessions) as session:
        project = project_name(session, caller.project_id)
    return {name: each for name, each in gateway.upstreams.items() if not each.projects or project in each.projects}


async def _body(request: Request) -> JsonObject | None:
    """The body, which was checked before, as an object; the request keeps it for who reads it next."""
    if not await request.body():
        return None
    body = await request.json()
    return body if isinstance(body, dict) else None


async def _forward(request: Request, body: JsonObject) -> Response:
    services: Services = request.app.state.services
    caller: Principal = request.state.caller
    if not isinstance(body.get("stream"), bool | None):
        raise Invalid(f"stream: got {show(body['stream'])}; expected true or false")
    if isinstance(user := body.get("user"), str) and len(user) > MAX_SESSION_CHARACTERS:
        # It is looked for in an index, so that a user's data can be deleted.
        raise Invalid(f"user: got {len(user)} characters; expected at most {MAX_SESSION_CHARACTERS}")
    call, recording = await run_in_threadpool(_begin, request, caller, body)
    following = asyncio.ensure_future(run_in_threadpool(recording.begin))

    async def headers() -> dict[str, str]:
        await following
        run_id = recording.name_run()
        return {"X-Memgen-Run": str(run_id)} if run_id else {}

    async def on_answered(answer: UpstreamAnswer) -> JsonObject:
        await following
        await run_in_threadpool(recording.offer, answer)
        return {"version": call.label, "recorded": recording.note.describe()}

    async def on_begun() -> None:
        await run_in_threadpool(_expose, services, caller, call, recording.session_id)

    alive_seconds = services.settings.stream_alive_seconds
    listener = Listener(on_begun, on_answered, headers)
    try:
        return await pass_through(request, request.app.state.gateway, call, listener, alive_seconds=alive_seconds)
    except UpstreamRefused as error:
        wait = {"Retry-After": error.retry_after} if error.retry_after else None
        return JSONResponse(error.body, error.status, headers=wait)


def _begin(request: Request, caller: Principal, body: JsonObject) -> tuple[UpstreamCall, UpstreamRecording]:
    """Find the upstream, and decide whether its answer is recorded.

    Raises:
        UpstreamNotFound: there is none of that name for the project, or it may not be asked for that model.
        Invalid: a header, or a field that speaks to this service, can't be read.
    """
    services: Services = request.app.state.services
    gateway: Gateway = request.app.state.gateway
    upstream, model = find_upstream(allowed_upstreams(gateway, services, caller), body["model"])
    if not isinstance(store := body.get("store"), bool | None):
        raise Invalid(f"store: got {show(store)}; expected true or false")
    if isinstance(user := body.get("user"), str) and len(user) > MAX_SESSION_CHARACTERS:
        # It is looked for in an index, so that a user's data can be deleted.
        raise Invalid(f"user: got {len(user)} characters; expected at most {MAX_SESSION_CHARACTERS}")
    metadata = texts_of(body.get("metadata"))
    session_id = request.headers.get("X-Session-Id") or metadata.get("session_id") or texts_of(body).get("user")
    session_id = check_session_id(session_id) if session_id else None
    ask = read_ask(request.headers, store=store, metadata=metadata)
    call = UpstreamCall(new_completion_id(), upstream, model, body, timeout_seconds(request))
    with reading(services.sessions) as session:
        decision = decide(
            session,
            caller.project_id,
            None,
            ask,
            sample_key=session_id or sample_key(body.get("messages")),
            idle_seconds=services.settings.run_idle_seconds,
        )
    recorded = UpstreamRequest(call.id, caller.project_id, caller.key_id, session_id, upstream.name, call.label, body)
    return call, UpstreamRecording(request.app.state.recorder, recorded, decision, ask)


def _expose(services: Services, caller: Principal, call: UpstreamCall, session_id: str | None) -> None:
    """Recorded before the answer is sent, so that feedback on it finds its upstream even if this process dies."""
    try:
        with transaction(services.sessions) as session:
            record_upstream_exposure(session, caller.project_id, call.id, call.label, session_id)
    except SQLAlchemyError:  # the answer is worth more than its attribution
        log.exception("an answer could not be attributed", completion=call.id, upstream=call.upstream.name)
