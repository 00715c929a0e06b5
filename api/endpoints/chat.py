"""The OpenAI-compatible paths: `/v1/chat/completions` and `/v1/models`, for the stock `openai` client."""

from collections.abc import Sequence
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from api.endpoints.chat_models import ChatIn
from api.endpoints.chat_reply import Reply, new_completion_id
from api.endpoints.chat_stream import open_stream
from api.http.deps import Reader, ServicesDep
from api.http.disconnect import while_connected
from api.inference.engine import InferenceEngine
from api.inference.requests import ChatRequest, Finished
from api.inference.shadows import Shadows
from api.inference.source import source_of
from registry.adapters import list_adapters
from registry.database import transaction
from registry.keys import Principal
from registry.names import BASE, CHAMPION
from registry.serving.aliases import list_aliases
from registry.serving.exposures import check_session_id, record_exposure
from registry.serving.resolution import Resolution, ServingRequest, resolve
from registry.trajectories.conversations import check_prompt
from registry.versions.state import servable_versions
from registry.wiring import Services

log = structlog.get_logger()
router = APIRouter(prefix="/v1", tags=["openai"])

SessionId = Annotated[
    str | None, Header(description="Conversation or user; its requests get one version of a route's. Not OpenAI's.")
]


@router.post("/chat/completions")
async def complete(
    body: ChatIn, request: Request, services: ServicesDep, caller: Reader, x_session_id: SessionId = None
) -> Response:
    """Answer with the memory woven in, as JSON or as a stream of OpenAI's chunks.

    `memgen`, in the reply or the last chunk of its choices, says which version answered and where it was woven. A
    client that goes away ends the generation.

    The model `adapter` goes by the adapter's live route, if it has one; then a session always gets the same version.
    The session's id is the header `X-Session-Id`, else `metadata.session_id`, else `user`; a request without one is
    assigned to a version by itself.
    """
    samplings = body.samplings(services.settings.max_new_tokens)
    session_id = x_session_id or body.session_id
    serving = ServingRequest(new_completion_id(), check_session_id(session_id) if session_id else None)
    resolution = await run_in_threadpool(_route, services, caller, body, serving)
    chat_request = ChatRequest(
        body.messages, body.callable_tools, samplings, source_of(services, resolution.adapter, resolution.version)
    )
    reply = Reply(resolution, chat_request.tools is not None, body.include_usage, serving.completion_id)
    inference: InferenceEngine = request.app.state.inference

    def on_answered(answers: Sequence[Finished]) -> None:
        shadow = source_of(services, resolution.adapter, resolution.shadow)
        if shadow is not None and resolution.route is not None:
            shadows: Shadows = request.app.state.shadows
            first = next(answer for answer in answers if answer.choice == 0)
            shadows.offer(reply.id, resolution.route, chat_request, shadow, first)

    if body.stream:
        stream = await open_stream(
            request,
            reply,
            inference.stream(chat_request),
            len(samplings),
            on_answered,
            alive_seconds=services.settings.stream_alive_seconds,
        )
        await run_in_threadpool(_expose, services, caller, serving, resolution)
        return stream
    answers = await while_connected(request, inference.answer(chat_request))
    await run_in_threadpool(_expose, services, caller, serving, resolution)
    on_answered(answers)
    return JSONResponse(reply.completion(answers), headers={"X-Memgen-Version": resolution.label})


@router.get("/models")
def models(services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """`base`, and for each adapter its name, its aliases and its versions."""
    with transaction(services.sessions) as session:
        found = [_model(BASE, 0)]
        for adapter in list_adapters(session, caller.project_id):
            aliases = list_aliases(session, adapter)
            created = int(adapter.created_at.timestamp())
            if any(alias.name == CHAMPION for alias in aliases):
                found.append(_model(adapter.name, created))
            found += [_model(f"{adapter.name}@{alias.name}", int(alias.moved_at.timestamp())) for alias in aliases]
            found += [
                _model(f"{adapter.name}@{version.number}", int(version.created_at.timestamp()))
                for version in servable_versions(session, adapter)
            ]
        return {"object": "list", "data": found}


@router.get("/models/{model}")
def model(model: str, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    with transaction(services.sessions) as session:
        resolution = resolve(session, caller.project_id, model)
        return _model(model, int(resolution.version.created_at.timestamp()) if resolution.version else 0)


def _route(services: Services, caller: Principal, body: ChatIn, serving: ServingRequest) -> Resolution:
    """Decide once which version answers: an alias or a route that changes later counts for the next request."""
    check_prompt(body.messages, body.tools)
    with transaction(services.sessions) as session:
        return resolve(session, caller.project_id, body.model, serving)


def _expose(services: Services, caller: Principal, serving: ServingRequest, resolution: Resolution) -> None:
    """Recorded before the answer is sent, so that feedback on it finds its version even if this process dies."""
    try:
        with transaction(services.sessions) as session:
            record_exposure(session, caller.project_id, serving.completion_id, resolution, serving.session_id)
    except SQLAlchemyError:  # the answer is worth more than its attribution
        log.exception("an answer could not be attributed", completion=serving.completion_id, version=resolution.label)


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "memgen"}
