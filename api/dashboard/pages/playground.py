"""The playground: one question to several versions and the base side by side, with every insertion marked."""

import json
from typing import Any

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.dashboard.rendering import show
from api.dashboard.routing import Pages, in_words
from api.dashboard.visits import HOME, Visit, admit_script
from api.endpoints import chat, feedback
from api.endpoints.chat_models import ChatIn
from api.endpoints.feedback import FeedbackIn
from api.http.problems import described
from registry.adapters import list_adapters
from registry.database import transaction
from registry.errors import Invalid
from registry.json_text import parse_json
from registry.names import BASE, CHAMPION
from registry.serving.aliases import aliases_by_adapter
from registry.versions.state import servable_versions

pages = Pages()
_FIELDS = ("model", "messages", "temperature", "max_tokens", "seed")
_NEWEST = 20
"""Versions of each adapter that are offered beside its aliases."""


@pages.get("/playground")
def playground(visit: Visit) -> Response:
    names = [BASE]
    with transaction(visit.services.sessions) as session:
        adapters = list_adapters(session, visit.caller.project_id)
        named = aliases_by_adapter(session, adapters)
        servable = servable_versions(session, visit.caller.project_id, newest=_NEWEST)
        for adapter in adapters:
            aliases = [alias.name for alias in named[adapter.id]]
            names += [adapter.name] if CHAMPION in aliases else []
            names += [f"{adapter.name}@{alias}" for alias in aliases]
            names += [f"{adapter.name}@{version.number}" for version in servable.get(adapter.id, [])]
    return show(visit, "playground.html", models=names, chosen=visit.request.query_params.get("model", ""))


async def _answer(request: Request) -> Response:
    """An answer as the chat endpoint streams it. It is recorded only where the project records everything."""
    try:
        visit, sent = await _read_request(request, "read")
        body = ChatIn.model_validate({**{name: sent[name] for name in _FIELDS if name in sent}, **_HOW})
        return await chat.complete(body, request, visit.services, visit.caller, None)
    except Exception as error:  # whatever is wrong, it is reported in the column of its model
        return await _report(request, error)


async def _rate(request: Request) -> Response:
    """Feedback on an answer, which counts as that of any user."""
    try:
        visit, sent = await _read_request(request, "write")
        body = FeedbackIn.model_validate({"completion_id": sent.get("completion_id"), "reward": sent.get("reward")})
        await run_in_threadpool(feedback.create, body, request, visit.services, visit.caller, Response())
    except Exception as error:  # whatever is wrong, it is reported beside the buttons
        return await _report(request, error)
    return JSONResponse({"counted": True})


_HOW: dict[str, Any] = {
    **{"stream": True, "logprobs": True, "store": False},
    "stream_options": {"include_usage": True},
}
"""Log-probabilities bring the tokens, and the usage how many stand in front of them: by both an insertion's place in
the text is known."""


async def _read_request(request: Request, scope: str) -> tuple[Visit, dict[str, Any]]:
    visit = await admit_script(request, scope)
    sent = parse_json(await request.body())
    if not isinstance(sent, dict):
        raise Invalid(f"got {json.dumps(sent)[:60]}; expected an object")
    return visit, sent


async def _report(request: Request, error: Exception) -> Response:
    found = await run_in_threadpool(described, request, in_words(error))
    return JSONResponse({"detail": found.detail, "code": found.code}, found.status)


routes = [
    *pages.routes,
    Route(f"{HOME}/playground/answer", _answer, methods=["POST"], name="dashboard.playground.answer"),
    Route(f"{HOME}/playground/feedback", _rate, methods=["POST"], name="dashboard.playground.feedback"),
]
