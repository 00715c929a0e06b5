"""The OpenAI-compatible paths: `/v1/chat/completions` and `/v1/models`, for the stock `openai` client."""

import json
import time
import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.deps import Reader, ServicesDep
from api.inference import ChatRequest, Inference, MemorySource
from memgen.chat import Answer, parse_answer
from memgen.engine import Generation
from memgen.sampling import Sampling
from registry.adapters import list_adapters
from registry.aliases import list_aliases
from registry.conversations import check_prompt
from registry.database import transaction
from registry.errors import InvalidTrajectory
from registry.served import BASE, Served, find_served
from registry.versions import list_versions
from registry.wiring import Services

router = APIRouter(prefix="/v1", tags=["openai"])


class ChatIn(BaseModel):
    """OpenAI's request. Fields that are not served yet are accepted at their neutral value only."""

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: int | None = None
    user: str | None = None
    stream: Literal[False] | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    presence_penalty: Annotated[float | None, Field(ge=0, le=0)] = None
    frequency_penalty: Annotated[float | None, Field(ge=0, le=0)] = None
    parallel_tool_calls: bool | None = None
    store: Literal[False] | None = None
    metadata: dict[str, str] | None = None


@router.post("/chat/completions")
def complete(
    body: ChatIn, request: Request, response: Response, services: ServicesDep, caller: Reader
) -> dict[str, Any]:
    """Answer with the memory woven in. `memgen` in the reply says which version answered and where it was woven."""
    check_prompt(body.messages, body.tools)
    with transaction(services.sessions) as session:
        served = find_served(session, caller.project_id, body.model)
        source = _source(services, served)
    inference: Inference = request.app.state.inference
    tools = None if body.tool_choice == "none" else body.tools
    generation = inference.answer(ChatRequest(body.messages, tools, _sampling(body, services), source))
    response.headers["X-Memgen-Version"] = served.label
    return _completion(served, generation, parse_answer(generation.text) if tools else None)


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


def _sampling(body: ChatIn, services: Services) -> Sampling:
    limit = services.settings.max_new_tokens
    asked = body.max_completion_tokens or body.max_tokens or 256
    if asked > limit:
        raise InvalidTrajectory(
            "max_tokens_too_large",
            f"max_tokens is {asked}; this service allows up to {limit} (MEMGEN_MAX_NEW_TOKENS)",
        )
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Sampling(asked, body.temperature, body.top_p, stop, body.seed)


def _completion(served: Served, generation: Generation, answer: Answer | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": generation.text}
    finish_reason = generation.finish_reason
    if answer is not None and answer.tool_calls:
        message["content"] = answer.content
        message["tool_calls"] = [
            {
                "id": f"call_{uuid.uuid4().hex[:24]}",
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)},
            }
            for call in answer.tool_calls
        ]
        finish_reason = "tool_calls"
    completion_tokens = len(generation.token_ids)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": served.label,
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}],
        "usage": {
            "prompt_tokens": generation.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": generation.prompt_tokens + completion_tokens,
        },
        "memgen": {
            "adapter": served.adapter.name if served.adapter else None,
            "version": served.version.number if served.version else None,
            "alias": served.alias,
            "insertions": [{"position": i.position, "latents": i.latents} for i in generation.insertions],
            "seconds": round(generation.seconds, 3),
        },
    }


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "memgen"}
