"""The recording of one request's answers: what is asked of the engine for it, and what is offered to the recorder.

What can be found out before the answer is there is found out meanwhile. What is left at its end is one write to a file.
"""

import asyncio
import math
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from fastapi.concurrency import run_in_threadpool

from api.http.json_object import JsonObject
from api.inference.requests import ChatRequest, Finished
from api.recording.note import RecordingNote
from api.recording.recorder import Recorder
from memgen.generation.requests import Decision
from memgen.generation.sampling import Sampling
from registry.binding import ServedBase
from registry.clock import utc_now
from registry.json_text import is_storable
from registry.recordings.call import RecordedCall, SampledAnswer, scope_of
from registry.recordings.open_points import OpenPoint, RunKind
from registry.recordings.policies import NOT_REQUESTED, RecordingAsk, RecordingDecision
from registry.trajectories.continuation import tools_hash

RAW_PROMPT = "raw_prompt"
_LISTED = ("temperature", "top_p", "top_k", "repetition_penalty", "frequency_penalty", "presence_penalty", "min_tokens")


@dataclass(frozen=True)
class RecordedRequest:
    """What of a request, and of where it went, its recording needs."""

    completion_id: str
    project_id: uuid.UUID
    key_id: uuid.UUID
    session_id: str | None
    user: str | None
    metadata: dict[str, str]
    model: str
    version_id: uuid.UUID | None
    prompts: tuple[ChatRequest, ...]
    requested_at: datetime = field(default_factory=utc_now)

    def prompt_of(self, choice: int) -> tuple[ChatRequest, Sampling]:
        """The prompt that a choice answers, and how it was drawn."""
        for prompt in self.prompts:
            if choice < len(prompt.samplings):
                return prompt, prompt.samplings[choice]
            choice -= len(prompt.samplings)
        raise IndexError(choice)


class AnswerRecording:
    """Lives in one event loop."""

    def __init__(
        self, recorder: Recorder, request: RecordedRequest, decision: RecordingDecision, ask: RecordingAsk
    ) -> None:
        self._recorder, self._request, self._decision, self._ask = recorder, request, decision, ask
        self._base: Callable[[], ServedBase | None] = lambda: None
        self._found: asyncio.Future[OpenPoint | None] | None = None
        reason = decision.reason
        if reason is None and any(not isinstance(prompt.raw_prompt, str | None) for prompt in request.prompts):
            reason = RAW_PROMPT
        self.note = RecordingNote(reason=reason)
        if reason is not None and reason != NOT_REQUESTED:
            recorder.count(request.project_id, reason)

    @property
    def wanted(self) -> bool:
        return self.note.reason is None

    def recorded(self, prompt: ChatRequest) -> ChatRequest:
        """The prompt, asking for what its recording needs of the engine."""
        if not self.wanted:
            return prompt
        return replace(prompt, samplings=tuple(replace(sampling, record=True) for sampling in prompt.samplings))

    def begin(self, base: Callable[[], ServedBase | None]) -> None:
        """Look, while the answer is made, which run it continues.

        Args:
            base: the base that answers, asked once it has: it may still be loaded when the request comes.
        """
        if self.wanted:
            self._base = base
            self._found = asyncio.ensure_future(run_in_threadpool(self._find_point))

    async def offer(self, answer: Finished, message_of: Callable[[Finished], tuple[JsonObject, str]]) -> None:
        """Have the recorder take an answer, before its end is sent. The first choice's names its run to the client."""
        point = await self._found if self._found is not None and answer.choice == 0 else None
        reason = await run_in_threadpool(self._offer, answer, message_of, point)
        self.note.reason = self.note.reason or reason

    def _offer(
        self, answer: Finished, message_of: Callable[[Finished], tuple[JsonObject, str]], point: OpenPoint | None
    ) -> str | None:
        request, (prompt, sampling) = self._request, self._request.prompt_of(answer.choice)
        message, finish_reason = message_of(answer)
        run_id = self._recorder.name_run(point)
        if answer.choice == 0:
            self.note.run_id = run_id
        call = RecordedCall(
            completion_id=request.completion_id,
            project_id=request.project_id,
            key_id=request.key_id,
            task=self._decision.task or "",
            model=request.model,
            messages=prompt.messages,
            tools=prompt.tools,
            answer=message,
            finish_reason=finish_reason,
            requested_at=request.requested_at,
            answered_at=utc_now(),
            choice=answer.choice,
            session_id=request.session_id,
            user=request.user if request.user and is_storable(request.user) else None,
            ends_run=self._ask.ends_run,
            version_id=request.version_id,
            metadata=own_metadata(request.metadata),
            sampled=_sampled(answer, sampling, self._base()),
            idle_seconds=self._decision.idle_seconds,
            run_id=run_id,
        )
        return self._recorder.offer_announced(call)

    def _find_point(self) -> OpenPoint | None:
        request, prompt = self._request, self._request.prompts[0]
        scope = scope_of(request.session_id, request.key_id)
        kind = RunKind(request.project_id, scope, self._decision.task or "", tools_hash(prompt.tools))
        return self._recorder.find_point(kind, prompt.messages)


def own_metadata(metadata: dict[str, str]) -> dict[str, Any]:
    """What is not said elsewhere in the trajectory, if it can be stored."""
    kept = {key: value for key, value in metadata.items() if key not in ("session_id", "task")}
    return {key: value for key, value in kept.items() if is_storable(key) and is_storable(value)}


def _sampled(answer: Finished, sampling: Sampling, base: ServedBase | None) -> SampledAnswer | None:
    drawn = answer.generation.drawn
    if drawn is None or base is None:
        return None
    return SampledAnswer(
        base=f"{base.name}@{base.revision}",
        prompt_ids=list(answer.prompt_ids),
        token_ids=list(drawn.token_ids),
        logprobs=_finite(drawn.logprobs),
        drawn_logprobs=_finite(drawn.drawn_logprobs),
        settings=_settings(sampling),
        decisions=[_decision(each) for each in answer.generation.decisions],
        cue=list(answer.cue),
        task=answer.task,
    )


def _finite(values: tuple[float, ...] | None) -> list[float] | None:
    """No JSON holds another number, and no training could use it."""
    return list(values) if values is not None and all(map(math.isfinite, values)) else None


def _settings(sampling: Sampling) -> dict[str, Any]:
    listed: dict[str, Any] = {name: getattr(sampling, name) for name in _LISTED}
    if sampling.logit_bias:
        listed["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    if sampling.constraint is not None:
        listed["constrained"] = True
    if sampling.stop:
        listed["stop"] = list(sampling.stop)
    return listed


def _decision(decision: Decision) -> dict[str, Any]:
    plain = asdict(replace(decision, states=None))
    del plain["states"]
    return plain
