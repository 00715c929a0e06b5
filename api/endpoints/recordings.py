"""What is recorded of a project's answers: its policies, and how much was and was not."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from api.http.deps import Reader, ServicesDep, Writer
from api.http.schemas import Strict
from api.recording.recorder import Recorder
from registry.adapters import get_adapter
from registry.database import transaction
from registry.models import RecordingPolicy
from registry.recordings.counts import list_counts
from registry.recordings.joining import RECORDED
from registry.recordings.policies import DEFAULT_MODE, clear_policy, find_policy, list_policies, set_policy
from registry.recordings.recorders import count_stuck, seconds_behind
from registry.recordings.runs import count_runs
from registry.tasks import get_task

router = APIRouter(prefix="/v1/recordings", tags=["recording"])


class RecordingPolicyIn(Strict):
    mode: Literal["off", "asked", "all"]
    share: Annotated[float, Field(gt=0, le=1, description="Share of the sessions that mode `all` records")] = 1.0
    task: Annotated[str | None, Field(description="Task of what names none", max_length=256)] = None
    idle_seconds: Annotated[
        float | None, Field(gt=0, le=30 * 86_400, description="Silence that closes a run; null is the next wider one's")
    ] = None


class RecordingPolicyOut(BaseModel):
    adapter: str | None = Field(description="Null: the whole project")
    mode: str
    share: float
    task: str | None
    idle_seconds: float | None
    changed_at: datetime | None
    actor: str | None

    @classmethod
    def of(cls, row: RecordingPolicy) -> "RecordingPolicyOut":
        same: dict[str, Any] = {n: getattr(row, n) for n in ("mode", "share", "idle_seconds", "changed_at", "actor")}
        return cls(**same, adapter=row.adapter.name if row.adapter else None, task=row.task.name if row.task else None)


class RecordingsOut(BaseModel):
    policies: list[RecordingPolicyOut] = Field(description="The project's first; mode asked where nobody set any")
    recorded: int = Field(description="Answers that stand in runs")
    waiting: int = Field(description="Answers that this process has taken and not yet moved into the database")
    behind_seconds: float = Field(
        description="How far behind the recorder of all processes is that is furthest behind: runs end so much later. "
        "About one where all keep up"
    )
    stuck: int = Field(
        description="Answers in recorders that have moved nothing for five minutes: runs end without them meanwhile. "
        "The log of their process says why"
    )
    not_recorded: dict[str, int] = Field(description="Answers that are not, by reason; dropped ones among them")
    runs: dict[str, int] = Field(description="Runs by state; `refused` are closed ones that became no trajectory")


@router.get("")
def get_recordings(request: Request, services: ServicesDep, caller: Reader) -> RecordingsOut:
    """What is recorded, what waits, and what was not recorded, with the reasons."""
    recorder: Recorder = request.app.state.recorder
    with transaction(services.sessions) as session:
        policies = [RecordingPolicyOut.of(row) for row in list_policies(session, caller.project_id)]
        counts = {row.outcome: row.count for row in list_counts(session, caller.project_id)}
        runs = count_runs(session, caller.project_id)
        behind, stuck = seconds_behind(session), count_stuck(session, caller.project_id)
    if not policies or policies[0].adapter is not None:
        policies.insert(0, _default())
    return RecordingsOut(
        policies=policies,
        recorded=counts.pop(RECORDED, 0),
        waiting=recorder.waiting(caller.project_id),
        behind_seconds=round(behind, 1),
        stuck=stuck,
        not_recorded=counts,
        runs=runs,
    )


@router.put("/policy")
def put_policy(body: RecordingPolicyIn, services: ServicesDep, caller: Writer) -> RecordingPolicyOut:
    """Set what is recorded of the whole project. It counts from the next request on."""
    return _put(services, caller, None, body)


@router.put("/policies/{name}")
def put_adapter_policy(name: str, body: RecordingPolicyIn, services: ServicesDep, caller: Writer) -> RecordingPolicyOut:
    """Set what is recorded of an adapter's answers, in place of the project's policy."""
    return _put(services, caller, name, body)


@router.delete("/policies/{name}")
def delete_adapter_policy(name: str, services: ServicesDep, caller: Writer) -> RecordingPolicyOut:
    """Let the project's policy, which it returns, hold for an adapter again. Harmless when repeated."""
    with transaction(services.sessions) as session:
        clear_policy(session, caller.project_id, get_adapter(session, caller.project_id, name))
        row = find_policy(session, caller.project_id, None)
        return RecordingPolicyOut.of(row) if row is not None else _default()


def _put(services: ServicesDep, caller: Writer, name: str | None, body: RecordingPolicyIn) -> RecordingPolicyOut:
    with transaction(services.sessions) as session:
        row = set_policy(
            session,
            caller.project_id,
            None if name is None else get_adapter(session, caller.project_id, name),
            mode=body.mode,
            share=body.share,
            task=None if body.task is None else get_task(session, caller.project_id, body.task),
            idle_seconds=body.idle_seconds,
            actor=caller.actor,
        )
        return RecordingPolicyOut.of(row)


def _default() -> RecordingPolicyOut:
    return RecordingPolicyOut(
        adapter=None, mode=DEFAULT_MODE, share=1.0, task=None, idle_seconds=None, changed_at=None, actor=None
    )
