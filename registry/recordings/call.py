"""A recorded call: one answer with the request that it answered, from the moment it is given until it stands in a run.

It is written as one line of JSON before its answer is sent, and may be read by another process after that.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from registry.models import JsonObject


@dataclass(frozen=True)
class SampledAnswer:
    """An answer as it was drawn, in tokens. `docs/recording.md` says what training makes of it."""

    base: str
    """The base that drew it, as `name@revision`: token ids mean nothing to another."""
    prompt_ids: list[int]
    """What the reasoner read in front of the answer."""
    token_ids: list[int]
    """The answer, with the token that ended it, if one did."""
    logprobs: list[float] | None
    """Natural log probability of each of `token_ids` under the model itself: before temperature, penalties, bias,
    top-k, top-p and grammar. None where the engine did not say."""
    drawn_logprobs: list[float] | None
    """The same under the distribution that the token was really drawn from. None where the engine does not know it;
    then `settings` say how it differed."""
    settings: JsonObject = field(default_factory=dict)
    """How it was drawn: temperature, top_p and whatever else was not neutral."""
    decisions: list[JsonObject] = field(default_factory=list)
    """Each point at which memory could be woven: `position`, `invoked`, `latents`, `reread`, `probability`."""
    cue: list[str] = field(default_factory=list)
    """Ids of the past trajectories that the weaver was shown. Never their text: it is others' data."""
    task: str | None = None
    """Task that the prompt was routed to, where the version has a memory for each."""


@dataclass(frozen=True)
class RecordedCall:
    completion_id: str
    project_id: uuid.UUID
    key_id: uuid.UUID
    task: str
    """The task's name; it exists when the call is made."""
    model: str
    """The exact version that answered, as `support-bot@7`, `base`, or an upstream's model, as `strong/gpt-5`."""
    messages: list[Any]
    """The request's, as chat messages."""
    tools: list[Any] | None
    answer: JsonObject
    """The assistant message, in OpenAI's shape."""
    finish_reason: str
    requested_at: datetime
    answered_at: datetime
    choice: int = 0
    session_id: str | None = None
    user: str | None = None
    ends_run: bool = False
    """The header `X-Memgen-Run: end` said that nothing follows."""
    version_id: uuid.UUID | None = None
    upstream: str | None = None
    """Name of the upstream that answered; None is this service's own base."""
    usage: JsonObject = field(default_factory=dict)
    metadata: JsonObject = field(default_factory=dict)
    """The request's own, for the trajectory's."""
    sampled: SampledAnswer | None = None
    """None for an upstream's answer."""
    idle_seconds: float = 900.0
    """Silence that closes the run, by the policy."""
    in_any_order: bool = False
    """An agent's tracing tells of it: calls that were made before it may be told later."""
    run_id: uuid.UUID = field(default_factory=uuid.uuid4)
    """The run that the answer names; a new one has this id."""

    @property
    def scope(self) -> str:
        return scope_of(self.session_id, self.key_id)

    def to_line(self) -> bytes:
        """One line of ASCII, with its end."""
        return json.dumps(_plain(self), separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "RecordedCall":
        """Raises ValueError, KeyError or TypeError: it is none."""
        found: dict[str, Any] = json.loads(line)
        known = {each.name for each in fields(cls)}
        found = {name: value for name, value in found.items() if name in known}
        for name in ("project_id", "key_id", "version_id", "run_id"):
            found[name] = uuid.UUID(found[name]) if found[name] is not None else None
        for name in ("requested_at", "answered_at"):
            found[name] = datetime.fromisoformat(found[name])
        found["sampled"] = SampledAnswer(**found["sampled"]) if found["sampled"] is not None else None
        return cls(**found)


def scope_of(session_id: str | None, key_id: uuid.UUID) -> str:
    """Within what a later request may continue an earlier one: the session, else whatever the same key sends."""
    return f"key {key_id}" if session_id is None else f"session {session_id}"


def _plain(call: RecordedCall) -> dict[str, Any]:
    # Not `asdict`: it would copy every message.
    plain = {each.name: getattr(call, each.name) for each in fields(call)}
    plain["sampled"] = asdict(call.sampled) if call.sampled is not None else None
    for name, value in plain.items():
        if isinstance(value, uuid.UUID):
            plain[name] = str(value)
        elif isinstance(value, datetime):
            plain[name] = value.isoformat()
    return plain


def size_of(messages: list[Any] | Mapping[str, Any]) -> int:
    """Bytes of JSON."""
    return len(json.dumps(messages, separators=(",", ":")))
