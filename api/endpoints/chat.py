"""The OpenAI-compatible paths: `/v1/chat/completions` and `/v1/models`, for the stock `openai` client."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from api.deps import Reader, ServicesDep
from api.disconnect import while_connected
from api.endpoints.chat_models import ChatIn
from api.endpoints.chat_reply import Reply
from api.endpoints.chat_stream import open_stream
from api.inference import Inference
from api.tickets import ChatRequest, MemorySource
from registry.adapters import list_adapters
from registry.aliases import list_aliases
from registry.conversations import check_prompt
from registry.database import transaction
from registry.keys import Principal
from registry.served import BASE, Served, find_served
from registry.versions import list_versions
from registry.wiring import Services

router = APIRouter(prefix="/v1", tags=["openai"])


@router.post("/chat/completions")
async def complete(body: ChatIn, request: Request, services: ServicesDep, caller: Reader) -> Response:
    """Answer with the memory woven in, as JSON or as a stream of OpenAI's chunks.

    `memgen`, in the reply or the last chunk of its choices, says which version answered and where it was woven. A
    client that goes away ends the generation.
    """
    samplings = body.samplings(services.settings.max_new_tokens)
    served = await run_in_threadpool(_route, services, caller, body)
    asked = ChatRequest(body.messages, body.callable_tools, samplings, _source(services, served))
    reply = Reply(served, tools=asked.tools is not None, include_usage=body.include_usage)
    inference: Inference = request.app.state.inference
    if body.stream:
        return await open_stream(request, reply, inference.stream(asked), len(samplings))
    answers = await while_connected(request, inference.answer(asked))
    return JSONResponse(reply.completion(answers), headers={"X-Memgen-Version": served.label})


@router.get("/models")
def models(services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """`base`, and for each adapter its name, its aliases and its versions."""
    with transaction(services.sessions) as session:
        found = [_model(BASE, 0)]
        for adapter in list_adapters(session, caller.project_id):
            aliases = list_aliases(session, adapter)
            created = int(adapter.created_at.timestamp())
            if any(alias.name == "champion" for alias in aliases):
                found.append(_model(adapter.name, created))
            found += [_model(f"{adapter.name}@{alias.name}", int(alias.moved_at.timestamp())) for alias in aliases]
            found += [
                _model(f"{adapter.name}@{version.number}", int(version.created_at.timestamp()))
                for version in list_versions(session, adapter)
            ]
        return {"object": "list", "data": found}


@router.get("/models/{model}")
def model(model: str, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    with transaction(services.sessions) as session:
        served = find_served(session, caller.project_id, model)
        return _model(model, int(served.version.created_at.timestamp()) if served.version else 0)


def _route(services: Services, caller: Principal, body: ChatIn) -> Served:
    """Decided once: an alias that moves now is for the next request."""
    check_prompt(body.messages, body.tools)
    with transaction(services.sessions) as session:
        return find_served(session, caller.project_id, body.model)


def _source(services: Services, served: Served) -> MemorySource | None:
    version = served.version
    if version is None:
        return None
    prefix = version.artifact_key
    return MemorySource(
        name=version.id.hex,
        manifest_sha256=version.artifact_hash,
        fetch=lambda folder: services.store.get_folder(prefix, folder),
    )


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "memgen"}
