"""The OpenAI-compatible paths: `/v1/chat/completions` and `/v1/models`, for the stock `openai` client."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.endpoints.answering import AnswerPlan, SessionId, answer_question
from api.endpoints.chat_models import ChatIn
from api.endpoints.chat_question import chat_question, chat_reply
from api.endpoints.chat_reply import new_completion_id
from api.endpoints.chat_stream import ChatShape
from api.endpoints.message_reply import model_info, model_list
from api.endpoints.upstream_chat import ForwardingRoute, allowed_upstreams
from api.http.anthropic_errors import is_anthropic
from api.http.deps import Reader, ServicesDep
from api.recording.note import RecordingNote
from registry.adapters import list_adapters
from registry.database import transaction
from registry.keys import Principal
from registry.names import BASE, CHAMPION
from registry.serving.aliases import aliases_by_adapter
from registry.serving.resolution import Resolution, resolve
from registry.upstreams import Upstream, find_upstream, is_upstream_model
from registry.versions.state import servable_versions
from registry.wiring import Services

router = APIRouter(prefix="/v1", tags=["openai"], route_class=ForwardingRoute)


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

    The model `upstream/model` is another endpoint's (`GET /v1/models`): its request may have any fields, and its answer
    is passed through as it comes, with an id of ours.
    """

    def read() -> AnswerPlan:
        question = chat_question(body, new_completion_id(), x_session_id, services.settings)

        def shape(resolution: Resolution, recording: RecordingNote) -> ChatShape:
            reply = chat_reply(body, resolution, question.id, recording, include_usage=body.include_usage)
            return ChatShape(reply, question.choices)

        return AnswerPlan(question, shape)

    return await answer_question(request, caller, read)


@router.get("/models")
def models(request: Request, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """`base`; for each adapter its name, its aliases and its versions; and the models of upstreams.

    With the header `anthropic-version`, this and its errors are in Anthropic's words.
    """
    upstreams = allowed_upstreams(request.app.state.gateway, services, caller)
    with transaction(services.sessions) as session:
        found = [_model(BASE, 0)]
        adapters = list_adapters(session, caller.project_id)
        named = aliases_by_adapter(session, adapters)
        servable = servable_versions(session, caller.project_id)
        for adapter in adapters:
            aliases = named[adapter.id]
            created = int(adapter.created_at.timestamp())
            if any(alias.name == CHAMPION for alias in aliases):
                found.append(_model(adapter.name, created))
            found += [_model(f"{adapter.name}@{alias.name}", int(alias.moved_at.timestamp())) for alias in aliases]
            found += [
                _model(f"{adapter.name}@{version.number}", int(version.created_at.timestamp()))
                for version in reversed(servable.get(adapter.id, []))
            ]
    found += [_upstream_model(upstream, name) for upstream in upstreams.values() for name in upstream.listed_models]
    return model_list(found) if _speaks_anthropic(request) else {"object": "list", "data": found}


@router.get("/models/{model:path}")
def model(model: str, request: Request, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    found = _find_model(model, request, services, caller)
    return model_info(found) if _speaks_anthropic(request) else found


def _find_model(model: str, request: Request, services: Services, caller: Principal) -> dict[str, Any]:
    if is_upstream_model(model):
        upstream, _ = find_upstream(allowed_upstreams(request.app.state.gateway, services, caller), model)
        return _upstream_model(upstream, model)
    with transaction(services.sessions) as session:
        resolution = resolve(session, caller.project_id, model)
        return _model(model, int(resolution.version.created_at.timestamp()) if resolution.version else 0)


def _speaks_anthropic(request: Request) -> bool:
    return is_anthropic(request.scope["path"], request.headers)


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "memgen"}


def _upstream_model(upstream: Upstream, name: str) -> dict[str, Any]:
    return {**_model(name, 0), "owned_by": upstream.name}
