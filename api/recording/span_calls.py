"""The recording of calls that agents' tracing tells of: demonstrations of whatever model answered them.

An agent that is traced to this service asks to be recorded by that alone. What this service answered itself is known
already, and is not recorded a second time.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.recording.moving import UNREADABLE
from api.recording.recorder import Recorder
from registry.clock import utc_now
from registry.database import one_of, reading, transaction
from registry.errors import InvalidJson, InvalidTrajectory
from registry.json_text import canonical_json, is_storable
from registry.models import Adapter, Exposure
from registry.names import is_valid_name
from registry.recordings.call import RecordedCall
from registry.recordings.policies import NO_TASK, OFF, TASK_UNKNOWN, RecordingAsk, RecordingDecision, decide
from registry.recordings.runs import announce_run
from registry.trajectories.continuation import tip_of
from registry.trajectories.conversations import check_prompt
from registry.trajectories.formats.otlp_spans.calls import SpanCall, TraceFacts
from registry.trajectories.tools import is_name
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
    actor: str
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
    with reading(services.sessions) as session:
        own = _own_answers(session, sender.project_id, calls)
    if own:
        recorder.flush()  # a tracer may be quicker than what puts an answer into its run
    with transaction(services.sessions) as session:
        _announce(session, sender.project_id, [call for call in calls if call.response_id in own])
        decide_call = _Deciding(session, services, sender, calls)
        decided = {id(call): decide_call(call, facts) for call in calls if call.response_id not in own}
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
    mine = Exposure.project_id == project_id, one_of(Exposure.completion_id, list(ids))
    query = select(Exposure.completion_id).where(*mine)
    return set(session.scalars(query)) if ids else set()


def _announce(session: Session, project_id: uuid.UUID, own: Sequence[SpanCall]) -> None:
    """Let a trace's reward find the runs of the answers in it that this service gave."""
    by_trace: dict[str, list[str]] = {}
    for call in own:
        if call.trace_id and call.response_id is not None:
            by_trace.setdefault(call.trace_id, []).append(call.response_id)
    for trace_id, ids in by_trace.items():
        announce_run(session, project_id, ids, run_of_trace(project_id, trace_id))


class _Deciding:
    """What becomes of calls: one question of the database for all that are alike."""

    def __init__(self, session: Session, services: Services, sender: TraceSender, calls: Sequence[SpanCall]) -> None:
        self._session, self._services, self._sender = session, services, sender
        names = {name for name in (_adapter_name(call) for call in calls) if is_valid_name(name)}
        named = select(Adapter).where(Adapter.project_id == sender.project_id, Adapter.name.in_(names))
        self._adapters = {adapter.name: adapter for adapter in session.scalars(named)} if names else {}
        self._known: dict[tuple[str | None, str | None], RecordingDecision] = {}

    def __call__(self, call: SpanCall, facts: Mapping[str, TraceFacts]) -> RecordingDecision:
        named = self._sender.task or facts[call.trace_id].own.get("task")
        task = named if isinstance(named, str) and is_valid_name(named) else None
        if named is not None and task is None:
            return RecordingDecision(None, TASK_UNKNOWN)
        adapter = self._adapters.get(_adapter_name(call))
        alike = (adapter.name if adapter else None, task)
        if alike not in self._known:
            # No share is drawn of what asks.
            ask = RecordingAsk(store=True, task=task, by_header=self._sender.task is not None)
            idle = self._services.settings.run_idle_seconds
            self._known[alike] = decide(
                self._session, self._sender.project_id, adapter, ask, sample_key="", idle_seconds=idle
            )
        return self._known[alike]


def _adapter_name(call: SpanCall) -> str:
    """Name of the adapter that answered, if the model is one of this project: its policy counts."""
    return call.model.partition("@")[0]


def _check(call: SpanCall, max_bytes: int) -> None:
    """Raises InvalidTrajectory or InvalidJson: it can't be stored, or would spoil its run."""
    check_prompt([*call.messages, call.answer], call.tools)
    length = len(canonical_json([*call.messages, call.answer]))
    if length > max_bytes:
        raise InvalidTrajectory("trajectory_too_long", f"messages: {length} bytes; expected at most {max_bytes}")
    canonical_json(call.tools)


def _session_of(call: SpanCall, facts: Mapping[str, TraceFacts]) -> str | None:
    """The name of its conversation, where it may be a session's; else calls are compared by what they say."""
    name = call.conversation or facts[call.trace_id].conversation
    return name if is_name(name) and is_storable(name) else None


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
        requested_at=_begun(call, at),
        answered_at=at,
        session_id=_session_of(call, facts),
        upstream=SOURCE,
        usage=call.usage,
        metadata={"otlp": {name: text for name, text in about.items() if text and is_storable(text)}},
        idle_seconds=decision.idle_seconds,
        in_any_order=True,
        run_id=run_of_trace(sender.project_id, call.trace_id) if call.trace_id else uuid.uuid4(),
    )


def _begun(call: SpanCall, arrived_at: datetime) -> datetime:
    """When the call was made, as its span says: feedback may have been given before the span came. A run's silence is
    counted from what came, whatever clock the spans are of."""
    try:
        begun = datetime.fromtimestamp(call.start_ns / 1e9, UTC)
    except (ValueError, OverflowError, OSError):
        return arrived_at
    return min(begun, arrived_at) if call.start_ns > 0 else arrived_at


def run_of_trace(project_id: uuid.UUID, trace_id: str) -> uuid.UUID:
    """What the runs of a trace's calls are announced as: by it the trace's reward finds them, whichever comes first."""
    return uuid.uuid5(project_id, f"trace {trace_id}")
