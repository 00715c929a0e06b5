"""The recording of an upstream's answers: demonstrations, which nothing here has sampled.

What can't be read as a conversation of texts and calls is not recorded, and counted so.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from api.gateway.answers import UpstreamAnswer, UpstreamChoice
from api.http.json_object import JsonObject
from api.recording.answers import own_metadata
from api.recording.asking import beginning_of
from api.recording.moving import UNREADABLE
from api.recording.note import RecordingNote
from api.recording.recorder import Recorder
from registry.clock import utc_now
from registry.errors import InvalidTrajectory
from registry.json_text import is_storable
from registry.recordings.call import RecordedCall, scope_of
from registry.recordings.open_points import OpenPoint, RunKind
from registry.recordings.policies import NOT_REQUESTED, RecordingAsk, RecordingDecision
from registry.trajectories.continuation import tools_hash
from registry.trajectories.conversations import check_prompt


@dataclass(frozen=True)
class UpstreamRequest:
    """What of a request for an upstream's model its recording needs."""

    completion_id: str
    project_id: uuid.UUID
    key_id: uuid.UUID
    session_id: str | None
    upstream: str
    model: str
    """With the upstream's name before it."""
    body: JsonObject
    requested_at: datetime = field(default_factory=utc_now)

    @property
    def tools(self) -> Any:
        """The tools that could be called."""
        return None if self.body.get("tool_choice") == "none" else self.body.get("tools") or None


class UpstreamRecording:
    """All methods may block: they are for threads."""

    def __init__(
        self, recorder: Recorder, request: UpstreamRequest, decision: RecordingDecision, ask: RecordingAsk
    ) -> None:
        self._recorder, self._request, self._decision, self._ask = recorder, request, decision, ask
        self._point: OpenPoint | None = None
        self.note = RecordingNote(reason=decision.reason)
        if decision.reason is not None and decision.reason != NOT_REQUESTED:
            recorder.count(request.project_id, decision.reason)

    @property
    def session_id(self) -> str | None:
        return self._request.session_id

    @property
    def wanted(self) -> bool:
        return self.note.reason is None

    def begin(self) -> None:
        """Look which run the request continues, while it is on its way."""
        if not self.wanted:
            return
        request = self._request
        try:
            check_prompt(request.body.get("messages"), request.tools)
        except InvalidTrajectory:
            self._refuse()
            return
        scope = scope_of(request.session_id, request.key_id)
        kind = RunKind(request.project_id, scope, self._decision.task or "", tools_hash(request.tools))
        self._point = self._recorder.find_point(kind, request.body["messages"])

    def name_run(self) -> uuid.UUID | None:
        """The run that the answer names, which is settled when it is first asked for: when there is an answer."""
        if self.wanted and self.note.run_id is None:
            self.note.run_id = self._recorder.name_run(self._point)
        return self.note.run_id if self.wanted else None

    def offer(self, answer: UpstreamAnswer) -> None:
        """Have the recorder take the answers, before the end of their reply is sent."""
        if not self.wanted:
            return
        if not answer.is_readable or any(_is_empty(choice.message) for choice in answer.choices):
            self._refuse()
            return
        self.name_run()
        for choice in answer.choices:
            reason = self._recorder.offer_announced(self._call(choice, answer.usage))
            self.note.reason = self.note.reason or reason

    def _refuse(self) -> None:
        self.note.reason = UNREADABLE
        self._recorder.count(self._request.project_id, UNREADABLE)

    def _call(self, choice: UpstreamChoice, usage: JsonObject) -> RecordedCall:
        request, user = self._request, self._request.body.get("user")
        return RecordedCall(
            completion_id=request.completion_id,
            project_id=request.project_id,
            key_id=request.key_id,
            task=self._decision.task or "",
            model=request.model,
            messages=request.body["messages"],
            tools=request.tools,
            answer=choice.message,
            finish_reason=choice.finish_reason,
            requested_at=request.requested_at,
            answered_at=utc_now(),
            choice=choice.index,
            session_id=request.session_id,
            user=user if isinstance(user, str) and user and is_storable(user) else None,
            ends_run=self._ask.ends_run,
            upstream=request.upstream,
            usage=usage,
            metadata=own_metadata(texts_of(request.body.get("metadata"))),
            idle_seconds=self._decision.idle_seconds,
            # The run is named for the first choice; the others are branches.
            run_id=self.note.run_id if self.note.run_id and choice.index == 0 else uuid.uuid4(),
        )


def sample_key(messages: Any) -> str:
    """As `beginning_of`, of messages that nothing has checked yet."""
    try:
        check_prompt(messages, None)
    except InvalidTrajectory:
        return ""
    return beginning_of(messages)


def texts_of(metadata: Any) -> dict[str, str]:
    """The members of a request's `metadata` that are texts."""
    found = metadata if isinstance(metadata, Mapping) else {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _is_empty(message: JsonObject) -> bool:
    return not message.get("content") and not message.get("tool_calls")
