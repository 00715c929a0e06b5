"""What a project wants recorded: its policies, and the decision for one request.

Modes: `off` records nothing, even where a request asks for it. `asked` records what asks: `store: true`, or the header
`X-Memgen-Task`. `all` records everything that names a task, or has one by its policy, but for requests with
`store: false`. An adapter's policy stands in place of the project's; without any, the mode is `asked`.
"""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.orm import Session, joinedload

from registry.clock import utc_now
from registry.errors import Invalid
from registry.models import RECORDING_MODES, Adapter, RecordingPolicy, Task

RecordingMode = Literal["off", "asked", "all"]
DEFAULT_MODE: RecordingMode = "asked"

NOT_REQUESTED = "not_requested"
OFF = "off"
STORE_FALSE = "store_false"
NO_TASK = "no_task"
TASK_UNKNOWN = "task_unknown"
NOT_SAMPLED = "not_in_share"


@dataclass(frozen=True)
class RecordingAsk:
    """What a request says of its recording."""

    store: bool | None = None
    task: str | None = None
    """Name of the task, by the header or by `metadata.task`."""
    by_header: bool = False
    """The header named it, which asks for the recording."""
    ends_run: bool = False


@dataclass(frozen=True)
class RecordingDecision:
    task: str | None
    """Name of the task to record under; None is not to record."""
    reason: str | None
    """Why not."""
    idle_seconds: float = 0.0


class _Policy(NamedTuple):
    """What a decision needs of a policy."""

    id: uuid.UUID
    adapter_id: uuid.UUID | None
    mode: str
    share: float
    idle_seconds: float | None
    task_name: str | None


_POLICIES = (
    select(
        RecordingPolicy.id,
        RecordingPolicy.adapter_id,
        RecordingPolicy.mode,
        RecordingPolicy.share,
        RecordingPolicy.idle_seconds,
        Task.name,
    )
    .outerjoin(RecordingPolicy.task)
    .where(
        RecordingPolicy.project_id == bindparam("project_id"),
        or_(RecordingPolicy.adapter_id.is_(None), RecordingPolicy.adapter_id == bindparam("adapter_id")),
    )
    .order_by(RecordingPolicy.adapter_id.nulls_last())
)
"""Columns, and no objects, in a statement that is made once: each request asks."""


def decide(
    session: Session,
    project_id: uuid.UUID,
    adapter: Adapter | None,
    ask: RecordingAsk,
    *,
    sample_key: str,
    idle_seconds: float,
) -> RecordingDecision:
    """Whether and under which task an answer is recorded.

    Args:
        sample_key: what a share is drawn by: equal for all requests of a run.
        idle_seconds: the service's, where no policy says.
    """
    rows = _policies(session, project_id, adapter)
    policy = next((row for row in rows if row.adapter_id is not None), rows[-1] if rows else None)
    mode = policy.mode if policy else DEFAULT_MODE
    reason = _why_not(mode, ask, policy, sample_key)
    if reason is not None:
        return RecordingDecision(None, reason)
    name = ask.task or next((row.task_name for row in rows if row.task_name is not None), None)
    if name is None:
        return RecordingDecision(None, NO_TASK)
    if ask.task is not None and not _exists(session, project_id, name):
        return RecordingDecision(None, TASK_UNKNOWN)
    idle = next((row.idle_seconds for row in rows if row.idle_seconds is not None), idle_seconds)
    return RecordingDecision(name, None, idle)


def set_policy(
    session: Session,
    project_id: uuid.UUID,
    adapter: Adapter | None,
    *,
    mode: str,
    share: float = 1.0,
    task: Task | None = None,
    idle_seconds: float | None = None,
    actor: str,
) -> RecordingPolicy:
    """Write the policy of the project, or of an adapter. Counts from the next request on.

    Raises:
        Invalid: a value is none.
    """
    if mode not in RECORDING_MODES:
        raise Invalid(f"mode {mode!r}; expected one of {', '.join(RECORDING_MODES)}")
    if not 0 < share <= 1:
        raise Invalid(f"share {share}; expected more than 0 and at most 1 (mode off records nothing)")
    if idle_seconds is not None and not 0 < idle_seconds <= 30 * 86_400:
        raise Invalid(f"idle_seconds {idle_seconds}; expected more than 0 and at most 30 days")
    # Two that set the first one take turns.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"policies of {project_id}", 0))))
    row = find_policy(session, project_id, adapter)
    if row is None:
        row = RecordingPolicy(project_id=project_id, adapter_id=adapter.id if adapter else None)
        session.add(row)
    row.mode, row.share, row.task, row.idle_seconds = mode, share, task, idle_seconds
    row.changed_at, row.actor = utc_now(), actor
    session.flush()
    return row


def clear_policy(session: Session, project_id: uuid.UUID, adapter: Adapter) -> None:
    """Remove an adapter's policy, if it has one."""
    row = find_policy(session, project_id, adapter)
    if row is not None:
        session.delete(row)


def find_policy(session: Session, project_id: uuid.UUID, adapter: Adapter | None) -> RecordingPolicy | None:
    """The policy of exactly the project, or of exactly the adapter."""
    whose = RecordingPolicy.adapter_id.is_(None) if adapter is None else RecordingPolicy.adapter_id == adapter.id
    return session.scalars(select(RecordingPolicy).where(RecordingPolicy.project_id == project_id, whose)).one_or_none()


def list_policies(session: Session, project_id: uuid.UUID) -> list[RecordingPolicy]:
    """The project's own first."""
    query = select(RecordingPolicy).where(RecordingPolicy.project_id == project_id)
    options = joinedload(RecordingPolicy.adapter), joinedload(RecordingPolicy.task)
    return sorted(session.scalars(query.options(*options)), key=lambda row: row.adapter.name if row.adapter else "")


def _policies(session: Session, project_id: uuid.UUID, adapter: Adapter | None) -> Sequence[_Policy]:
    """The adapter's, then the project's."""
    rows = session.execute(_POLICIES, {"project_id": project_id, "adapter_id": adapter.id if adapter else None})
    return [_Policy(*row) for row in rows]


def _why_not(mode: str, ask: RecordingAsk, policy: _Policy | None, sample_key: str) -> str | None:
    asks = ask.store is True or (ask.by_header and ask.store is None)
    if mode == "off":
        return OFF if asks else NOT_REQUESTED
    if ask.store is False:
        return STORE_FALSE
    if asks:
        return None
    if mode == "asked" or policy is None:
        return NOT_REQUESTED
    digest = hashlib.sha256(f"{policy.id}\n{sample_key}".encode()).digest()
    return None if int.from_bytes(digest[:8], "big") < policy.share * 2**64 else NOT_SAMPLED


def _exists(session: Session, project_id: uuid.UUID, task: str) -> bool:
    found = session.scalars(select(Task.id).where(Task.project_id == project_id, Task.name == task)).one_or_none()
    return found is not None
