"""What becomes of a request for an answer, in whichever API's words it came: version, answer, attribution, shadow.

It knows no body and no reply: an endpoint hands over the prompts that it read, and the shape that its answers have.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeVar

import structlog
from fastapi import Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from api.endpoints.answer_stream import AnswerShape, open_stream
from api.http.disconnect import while_connected
from api.http.json_object import JsonObject
from api.inference.engine import InferenceEngine
from api.inference.requests import ChatRequest, Finished
from api.inference.shadows import Shadows
from api.inference.source import source_of
from api.inference.together import answer_together, stream_together
from api.recording.answers import AnswerRecording, RecordedRequest
from api.recording.asking import beginning_of, read_ask
from api.recording.note import RecordingNote
from registry.database import reading, transaction
from registry.errors import Invalid
from registry.keys import Principal
from registry.recordings.policies import RecordingAsk, RecordingDecision, decide
from registry.serving.exposures import check_session_id, forget_exposure, record_exposure
from registry.serving.resolution import Resolution, ServingRequest, resolve
from registry.wiring import Services

log = structlog.get_logger()

SessionId = Annotated[
    str | None, Header(description="Conversation or user; its requests get one version of a route's. Not OpenAI's.")
]

TIMEOUT_HEADER = "X-Memgen-Timeout"
"""Seconds that a caller waits for an answer, if that is less than the service would take."""

_AT_ONCE_SECONDS = 0.005
"""What is refused within this time, as by a full queue, costs the database nothing."""
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Question:
    """What is to be answered: the prompts of one request, all by the same version."""

    id: str
    """The answer's id, by which feedback names it."""
    model: str
    prompts: tuple[ChatRequest, ...]
    """Each with its own choices, numbered on from prompt to prompt; the version's memory is filled in here."""
    session_id: str | None = None
    stream: bool = False
    store: bool | None = None
    """Whether it asks to be recorded, or not to be; None says nothing."""
    user: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def choices(self) -> int:
        return sum(len(prompt.samplings) for prompt in self.prompts)


@dataclass(frozen=True)
class AnswerPlan:
    """A question, and how whoever asked it is answered."""

    question: Question
    make_shape: Callable[[Resolution, RecordingNote], AnswerShape]
    """The shape of the answer, once it is known which version gives it, and whether it is recorded."""
    on_reply: Callable[[JsonObject], None] | None = None
    """Called in a thread with the whole reply before it is sent, or before a stream's end is; what it changes of it is
    sent."""


async def answer_question(request: Request, caller: Principal, read: Callable[[], AnswerPlan]) -> Response:
    """Answer with the memory woven in, as JSON or as a stream of events. A client that goes away ends the generation.

    Args:
        read: makes of the body what is asked. Called in a thread: it may take time, and the database.

    Raises:
        RegistryError: no such model, or not one that serves.
        Exception: what `read` raises.
        Invalid: a header of this service's own can't be read.
        InferenceUnavailable, MemgenError: as `InferenceEngine.answer`.
        ClientDisconnect: the client went away before the reply began.
    """
    services: Services = request.app.state.services
    begun = await run_in_threadpool(_begin, request, services, caller, read)
    resolution, serving, recording, prompts = begun.resolution, begun.serving, begun.recording, begun.prompts
    question, shape, on_reply = begun.question, begun.shape, begun.on_reply
    inference: InferenceEngine = request.app.state.inference
    recording.begin(lambda: inference.base)

    async def on_finished(answer: Finished) -> None:
        await recording.offer(answer, shape.message)

    async def on_answered(answers: Sequence[Finished]) -> None:
        if on_reply is not None:
            await run_in_threadpool(on_reply, shape.whole(answers))
        shadow = source_of(services, resolution.adapter, resolution.shadow)
        if shadow is not None and resolution.route is not None:
            shadows: Shadows = request.app.state.shadows
            first = next(answer for answer in answers if answer.choice == 0)
            shadows.offer(question.id, resolution.route, prompts[0], shadow, first)

    if question.stream:
        stream = open_stream(
            request,
            shape,
            stream_together(inference, prompts),
            resolution.label,
            on_answered,
            on_finished=on_finished if recording.wanted else None,
            alive_seconds=services.settings.stream_alive_seconds,
        )
        return await _exposed(stream, services, caller, serving, resolution)
    answering = while_connected(request, answer_together(inference, prompts))
    answers = await _exposed(answering, services, caller, serving, resolution)
    await asyncio.gather(*(on_finished(answer) for answer in answers if recording.wanted))
    await on_answered(answers)
    return JSONResponse(shape.whole(answers), headers={"X-Memgen-Version": resolution.label})


@dataclass(frozen=True)
class _Begun:
    """A question of which it is decided what becomes of it."""

    question: Question
    shape: AnswerShape
    on_reply: Callable[[JsonObject], None] | None
    resolution: Resolution
    serving: ServingRequest
    recording: AnswerRecording
    prompts: list[ChatRequest]


def _begin(request: Request, services: Services, caller: Principal, read: Callable[[], AnswerPlan]) -> _Begun:
    """All that is to be read and looked up, at once: each way through a thread costs as much as a query."""
    asked = read()
    question = asked.question
    session_id = check_session_id(question.session_id) if question.session_id else None
    serving = ServingRequest(question.id, session_id)
    ask = read_ask(request.headers, store=question.store, metadata=question.metadata)
    seconds = timeout_seconds(request)
    resolution, decision = _route(services, caller, question, serving, ask)
    recorded = _recorded_request(caller, question, session_id, resolution)
    recording = AnswerRecording(request.app.state.recorder, recorded, decision, ask)
    source = source_of(services, resolution.adapter, resolution.version)
    prompts = [
        recording.recorded(replace(prompt, memory=source, timeout_seconds=seconds)) for prompt in question.prompts
    ]
    shape = asked.make_shape(resolution, recording.note)
    return _Begun(question, shape, asked.on_reply, resolution, serving, recording, prompts)


def timeout_seconds(request: Request) -> float | None:
    """How long the caller waits for the answer, by the header; None if it does not say."""
    value = request.headers.get(TIMEOUT_HEADER)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise Invalid(
            f"{TIMEOUT_HEADER} is {value[:60]!r}; expected a number of seconds, more than 0, such as 20 or 2.5"
        )
    return seconds


def _route(
    services: Services, caller: Principal, question: Question, serving: ServingRequest, ask: RecordingAsk
) -> tuple[Resolution, RecordingDecision]:
    """Decide once which version answers, and whether it is recorded: an alias, a route or a policy that changes later
    counts for the next request."""
    with reading(services.sessions) as session:
        resolution = resolve(session, caller.project_id, question.model, serving)
        decision = decide(
            session,
            caller.project_id,
            resolution.adapter,
            ask,
            sample_key=serving.session_id or beginning_of(question.prompts[0].messages),
            idle_seconds=services.settings.run_idle_seconds,
        )
        return resolution, decision


def _recorded_request(
    caller: Principal, question: Question, session_id: str | None, resolution: Resolution
) -> RecordedRequest:
    return RecordedRequest(
        completion_id=question.id,
        project_id=caller.project_id,
        key_id=caller.key_id,
        session_id=session_id,
        user=question.user,
        metadata=question.metadata,
        model=resolution.label,
        version_id=resolution.version.id if resolution.version else None,
        prompts=question.prompts,
    )


async def _exposed(
    answering: Coroutine[Any, Any, _Answer],
    services: Services,
    caller: Principal,
    serving: ServingRequest,
    resolution: Resolution,
) -> _Answer:
    """The answer, attributed while it is made: that costs it no time of its own. One that fails leaves no row."""
    task = asyncio.ensure_future(answering)
    exposing: asyncio.Future[None] | None = None
    try:
        await asyncio.wait((task,), timeout=_AT_ONCE_SECONDS)
        if not task.done() or task.exception() is None:
            exposing = asyncio.ensure_future(run_in_threadpool(_expose, services, caller, serving, resolution))
        answer = await task
    except BaseException:
        task.cancel()
        if exposing is not None:
            await exposing
            await run_in_threadpool(_unexpose, services, serving)
        raise
    if exposing is not None:
        await exposing
    return answer


def _expose(services: Services, caller: Principal, serving: ServingRequest, resolution: Resolution) -> None:
    """Recorded before the answer is sent, so that feedback on it finds its version even if this process dies."""
    try:
        with transaction(services.sessions) as session:
            record_exposure(session, caller.project_id, serving.completion_id, resolution, serving.session_id)
    except SQLAlchemyError:  # the answer is worth more than its attribution
        log.exception("an answer could not be attributed", completion=serving.completion_id, version=resolution.label)


def _unexpose(services: Services, serving: ServingRequest) -> None:
    try:
        with transaction(services.sessions) as session:
            forget_exposure(session, serving.completion_id)
    except SQLAlchemyError:  # the error that the caller hears of is the answer's
        log.exception("the attribution of an answer that failed was left", completion=serving.completion_id)
