"""`/v1/completions`: OpenAI's older API. The prompt is read as it is, without the base's chat template."""

from fastapi import APIRouter, Request, Response

from api.endpoints.answering import AnswerPlan, Question, SessionId, answer_question
from api.endpoints.chat_reply import Reply
from api.endpoints.completion_models import CompletionIn, RawPrompt
from api.endpoints.completion_reply import CompletionShape, new_text_id
from api.endpoints.foreign_body import as_chat
from api.endpoints.upstream_chat import OwnModelsRoute
from api.http.deps import Reader, ServicesDep
from api.inference.requests import ChatRequest
from api.recording.note import RecordingNote
from memgen.generation.sampling import Sampling
from registry.serving.resolution import Resolution
from registry.settings import Settings

router = APIRouter(prefix="/v1/completions", tags=["openai"], route_class=OwnModelsRoute)


@router.post("")
async def complete(
    body: CompletionIn, request: Request, services: ServicesDep, caller: Reader, x_session_id: SessionId = None
) -> Response:
    """Continue each prompt, with the memory woven in at its end. Otherwise as `/v1/chat/completions`."""

    def read() -> AnswerPlan:
        question = _question(body, x_session_id, services.settings)
        include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)

        def shape(resolution: Resolution, recording: RecordingNote) -> CompletionShape:
            reply = Reply(resolution, tools=False, include_usage=include_usage, id=question.id, recording=recording)
            return CompletionShape(reply, body.n or 1, question.choices)

        return AnswerPlan(question, shape)

    return await answer_question(request, caller, read)


def _question(body: CompletionIn, session_id: str | None, settings: Settings) -> Question:
    samplings = as_chat(body.chat_fields(), "/v1/completions").samplings(settings.max_new_tokens)
    prompts = tuple(_request(prompt, samplings) for prompt in body.prompts)
    return Question(
        new_text_id(),
        body.model,
        prompts,
        session_id or body.user or None,
        bool(body.stream),
        user=body.user or None,
    )


def _request(prompt: RawPrompt, samplings: tuple[Sampling, ...]) -> ChatRequest:
    text = prompt if isinstance(prompt, str) else ""
    return ChatRequest([{"role": "user", "content": text}], None, samplings, None, prompt)
