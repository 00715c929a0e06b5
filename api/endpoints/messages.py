"""`/v1/messages`: Anthropic's Messages API, for the stock `anthropic` client. Errors have Anthropic's shape."""

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from api.endpoints.answering import AnswerPlan, SessionId, answer_question
from api.endpoints.chat_models import ChatIn
from api.endpoints.chat_question import chat_question, chat_reply
from api.endpoints.foreign_body import as_chat
from api.endpoints.message_models import CountIn, MessageIn
from api.endpoints.message_reply import MessageShape, new_message_id
from api.endpoints.upstream_chat import OwnModelsRoute
from api.http.deps import Reader, ServicesDep
from api.inference.engine import InferenceEngine
from api.inference.requests import ChatRequest
from api.recording.note import RecordingNote
from registry.database import reading
from registry.keys import Principal
from registry.serving.resolution import Resolution, resolve
from registry.wiring import Services

router = APIRouter(prefix="/v1/messages", tags=["anthropic"], route_class=OwnModelsRoute)


@router.post("")
async def create(
    body: MessageIn, request: Request, services: ServicesDep, caller: Reader, x_session_id: SessionId = None
) -> Response:
    """Answer with the memory woven in, as a message or as a stream of its events.

    The key may come as `x-api-key`. The session is the header `X-Session-Id`, else `metadata.user_id`. Otherwise as
    `/v1/chat/completions`.
    """

    def read() -> AnswerPlan:
        chat = _as_chat(body)
        question = chat_question(chat, new_message_id(), x_session_id, services.settings)

        def shape(resolution: Resolution, recording: RecordingNote) -> MessageShape:
            return MessageShape(chat_reply(chat, resolution, question.id, recording, include_usage=True))

        return AnswerPlan(question, shape)

    return await answer_question(request, caller, read)


@router.post("/count_tokens")
async def count(body: CountIn, request: Request, services: ServicesDep, caller: Reader) -> dict[str, int]:
    """How many tokens the prompt has, as `input_tokens` of an answer would say. Nothing is answered."""
    prompt = await run_in_threadpool(_prompt, services, caller, body)
    inference: InferenceEngine = request.app.state.inference
    return {"input_tokens": await inference.count_tokens(prompt)}


def _as_chat(body: CountIn) -> ChatIn:
    return as_chat(body.chat_fields(), "/v1/messages")


def _prompt(services: Services, caller: Principal, body: CountIn) -> ChatRequest:
    [prompt] = chat_question(_as_chat(body), new_message_id(), None, services.settings).prompts
    with reading(services.sessions) as session:
        resolve(session, caller.project_id, body.model)
    return prompt
