"""`/v1/responses`: OpenAI's Responses API, for the stock `openai` client and the Agents SDK.

A reply is recorded where its request says `store: true`, and nowhere else; then another request may go on from it.
"""

from datetime import timedelta
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.exc import SQLAlchemyError

from api.endpoints.answering import AnswerPlan, SessionId, answer_question
from api.endpoints.chat_models import ChatIn
from api.endpoints.chat_question import chat_question, chat_reply
from api.endpoints.foreign_body import as_chat
from api.endpoints.response_items import chat_messages
from api.endpoints.response_models import ResponseIn
from api.endpoints.response_reply import ResponseShape, new_response_id
from api.endpoints.upstream_chat import OwnModelsRoute
from api.http.deps import Reader, ServicesDep, Writer
from api.http.json_object import JsonObject, JsonObjects
from api.recording.note import RecordingNote
from registry.database import transaction
from registry.errors import InvalidTrajectory
from registry.keys import Principal
from registry.serving.resolution import Resolution
from registry.serving.stored_responses import (
    ResponseOwner,
    conversation_of,
    delete_response,
    get_response,
    store_response,
)
from registry.wiring import Services

log = structlog.get_logger()
router = APIRouter(prefix="/v1/responses", tags=["openai"], route_class=OwnModelsRoute)


@router.post("")
async def respond(
    body: ResponseIn, request: Request, services: ServicesDep, caller: Reader, x_session_id: SessionId = None
) -> Response:
    """Answer with the memory woven in, as a response or as a stream of its events.

    The reply is recorded only with `store: true`; `store` in it says whether it was. `previous_response_id` goes on
    from a recorded one. Otherwise as `/v1/chat/completions`.
    """

    def read() -> AnswerPlan:
        chat = _as_chat(services, caller, body)
        question = chat_question(chat, new_response_id(), x_session_id, services.settings)

        def shape(resolution: Resolution, recording: RecordingNote) -> ResponseShape:
            return ResponseShape(body, chat_reply(chat, resolution, question.id, recording, include_usage=True))

        def store(reply: JsonObject) -> None:
            owner = ResponseOwner(question.session_id, body.user or (body.metadata or {}).get("user"))
            _store(services, caller, body.items, reply, owner)

        return AnswerPlan(question, shape, store if body.store else None)

    return await answer_question(request, caller, read)


@router.get("/{response_id}")
def retrieve(
    response_id: str,
    services: ServicesDep,
    caller: Reader,
    stream: Annotated[bool, Query(description="Refused: an answer is streamed while it is made, and no more.")] = False,
) -> JsonObject:
    """A recorded response."""
    if stream:
        raise InvalidTrajectory(
            "stream_unsupported", "stream: a recorded response is not streamed again; retrieve it without stream"
        )
    with transaction(services.sessions) as session:
        return get_response(session, caller.project_id, response_id).reply


@router.delete("/{response_id}")
def delete(response_id: str, services: ServicesDep, caller: Writer) -> JsonObject:
    """Remove a recorded response. Those that continue it can't be continued any more."""
    with transaction(services.sessions) as session:
        delete_response(session, caller.project_id, response_id)
    return {"id": response_id, "object": "response", "deleted": True}


def _as_chat(services: Services, caller: Principal, body: ResponseIn) -> ChatIn:
    earlier: JsonObjects = []
    if body.previous_response_id is not None:
        with transaction(services.sessions) as session:
            found = conversation_of(
                session, caller.project_id, body.previous_response_id, services.settings.max_chat_bytes
            )
            earlier = chat_messages([item for each in found for item in (*each.items, *each.reply["output"])])
    return as_chat(body.chat_fields(earlier), "/v1/responses")


def _store(services: Services, caller: Principal, items: JsonObjects, reply: JsonObject, owner: ResponseOwner) -> None:
    """Record the reply, or say in it that it is not: the answer is worth more."""
    lifetime = timedelta(days=services.settings.response_days)
    try:
        with transaction(services.sessions) as session:
            store_response(session, caller.project_id, reply, items, owner, lifetime)
    except SQLAlchemyError:
        log.exception("a response could not be recorded", response=reply["id"])
        reply["store"] = False
