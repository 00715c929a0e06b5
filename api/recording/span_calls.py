"""The recording of calls that agents' tracing tells of: demonstrations of whatever model answered them.

An agent that is traced to this service asks to be recorded by that alone. What this service answered itself is known
already, and is not recorded a second time.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.recording.asking import beginning_of
from api.recording.recorder import UNREADABLE, Recorder
from registry.clock import utc_now
from registry.database import transaction
from registry.errors import InvalidJson, InvalidTrajectory
from registry.json_text import canonical_json, is_storable
from registry.models import Exposure
from registry.names import is_valid_name
from registry.recordings.call import RecordedCall
from registry.recordings.policies import NO_TASK, OFF, TASK_UNKNOWN, RecordingAsk, RecordingDecision, decide
from registry.trajectories.continuation import tip_of
from registry.trajectories.conversations import check_prompt
from registry.trajectories.formats.otlp_spans.calls import SpanCall, TraceFacts
from registry.wiring import Services

SOURCE = "otlp"
"""Stands where an upstream's name would: another endpoint answered, and we were told of it."""
_ADVICE = {
    NO_TASK: "name it by the header X-Memgen-Task, the attribute memgen.task, or the project's recording policy",
    TASK_UNKNOWN: "create the task first",
    OFF: "the project's recording policy is off",
}


@dataclass
class TakenSpans:
    """What became of an export's calls."""

    taken: int = 0
    rejected: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    """The first explanation of each reason why calls were rejected."""

    def reject(self, reason: str, explanation: str = "") -> None:
        self.rejected += 1
        self.reasons.setdefault(reason, explanation or _ADVICE.get(reason, "it was not recorded"))

    @property
    def message(self) -> str:
        return "; ".join(f"{reason}: {explanation}" for reason, explanation in self.reasons.items())


@dataclass(frozen=True)
class TraceSender:
    project_id: uuid.UUID
    key_id: uuid.UUID
    task: str | None
    """By the request's header, for all spans of the export."""


def record_spans(
    services: Services,
    recorder: Recorder,
    sender: TraceSender,
    calls: Sequence[SpanCall],
    facts: Mapping[str, TraceFacts],
    outcome: TakenSpans,
) -> None:
    """Have the recorder take the calls, in the order in which they were made. Blocks."""
    with transaction(services.sessions) as session:
        own = _own_answers(session, sender.project_id, calls)
        decided = {
            id(call): _decide(session, services, sender, call, facts) for call in calls if call.response_id not in own
        }
    # An export is a moment: what its spans say of time may be of any clock.
    now = utc_now()
    for place, call in enumerate(calls):
        decision = decided.get(id(call))
        if decision is None:
            outcome.taken += 1
            continue
        try:
            reason, explanation = decision.reason, ""
            if reason is None:
                _check(call, services.settings.max_trajectory_bytes)
        except (InvalidTrajectory, InvalidJson) as error:
            reason, explanation = UNREADABLE, f"{error.code}: {error}"
        if reason is not None:
            recorder.count(sender.project_id, reason)
        else:
            reason = recorder.offer(_recorded(sender, call, facts, decision, now + timedelta(microseconds=place)))
        if reason is None:
            outcome.taken += 1
        else:
            outcome.reject(reason, explanation)


def _own_answers(session: Session, project_id: uuid.UUID, calls: Sequence[SpanCall]) -> set[str | None]:
    """Ids of the answers among the calls' that this service gave, whether they were recorded or were not to be."""
    ids = {call.response_id for call in calls if call.response_id is not None and is_storable(call.response_id)}
    query = select(Exposure.completion_id).where(Exposure.project_id == project_id, Exposure.completion_id.in_(ids))
    return set(session.scalars(query)) if ids else set()


def _decide(
    session: Session, services: Services, sender: TraceSender, call: SpanCall, facts: Mapping[str, TraceFacts]
) -> RecordingDecision:
    named = sender.task or facts[call.trace_id].own.get("task")
    task = named if isinstance(named, str) and is_valid_name(named) else None
    if named is not None and task is None:
        return RecordingDecision(None, TASK_UNKNOWN)
    ask = RecordingAsk(store=True, task=task, by_header=sender.task is not None)
    idle = services.settings.run_idle_seconds
    key = _session_of(call, facts) or beginning_of(call.messages)
    return decide(session, sender.project_id, None, ask, sample_key=key, idle_seconds=idle)


def _check(call: SpanCall, max_bytes: int) -> None:
    """Raises InvalidTrajectory or InvalidJson: it can't be stored, or would spoil its run."""
    check_prompt([*call.messages, call.answer], call.tools)
    length = len(canonical_json([*call.messages, call.answer]))
    if length > max_bytes:
        raise InvalidTrajectory("trajectory_too_long", f"messages: {length} bytes; expected at most {max_bytes}")
    canonical_json(call.tools)


def _session_of(call: SpanCall, facts: Mapping[str, TraceFacts]) -> str | None:
    name = call.conversation or facts[call.trace_id].conversation
    return name if name and is_storable(name) else None


def _recorded(
    sender: TraceSender,
    call: SpanCall,
    facts: Mapping[str, TraceFacts],
    decision: RecordingDecision,
    at: datetime,
) -> RecordedCall:
    about = {"trace": call.trace_id[:64], "service": call.service}
    # A framework and its client tell of one call in two spans, and an exporter sends again what it has no answer for.
    identity = f"{sender.project_id}\n{call.trace_id}\n{tip_of(call.messages, call.answer)}\n{call.choice}"
    return RecordedCall(
        completion_id=f"otlp-{hashlib.sha256(identity.encode('utf-8', 'replace')).hexdigest()[:40]}",
        project_id=sender.project_id,
        key_id=sender.key_id,
        task=decision.task or "",
        model=call.model if call.model and is_storable(call.model) else "unknown",
        messages=call.messages,
        tools=call.tools,
        answer=call.answer,
        finish_reason=call.finish_reason if is_storable(call.finish_reason) else "stop",
        requested_at=at,
        answered_at=at,
        session_id=_session_of(call, facts),
        upstream=SOURCE,
        usage=call.usage,
        metadata={"otlp": {name: text for name, text in about.items() if text and is_storable(text)}},
        idle_seconds=decision.idle_seconds,
    )
