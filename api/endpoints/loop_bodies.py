"""Bodies of `/v1/loops`: what sets a loop up, and everything that one screen of it shows."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.endpoints.tasks import GraderSpec
from api.http.schemas import Strict
from api.http.values import Number
from registry.loops.attempts import JudgedVersion
from registry.loops.plan import LoopPlan, SetUpPart
from registry.loops.recording import RecordingWish
from registry.loops.report import CanaryProgress, LoopReport, StageCount, WaitsFor
from registry.loops.setup import CANARY_SHARE, MOST_FAILURES, QUIET_HOURS
from registry.models import Loop, LoopChange

_GATE_TERMS = ("gate_margin", "canary_share", "canary_promotion", "canary_margin")


class LoopIn(Strict):
    """What is left out stays as it is, or gets its default where there is nothing yet."""

    adapter: str
    task: str
    create: Annotated[bool, Field(description="Make the adapter and the task if they are not there")] = False
    every: Annotated[
        str | None,
        Field(
            max_length=200,
            description="`night`, `day`, `hour`, `week`, an interval such as `6h` or `30m`, or a cron expression; "
            "`night` for a new loop without `after`",
        ),
    ] = None
    time_zone: Annotated[str | None, Field(max_length=64, description="IANA name, of `every`; default UTC")] = None
    idle_hours: Annotated[
        float | None, Field(description="In place of `every`: hours without trajectories and requests")
    ] = None
    after: Annotated[
        Number | None,
        Field(description="New trajectories that must wait; with `every`, fewer wait for its next time"),
    ] = None
    training: Annotated[dict[str, Any] | None, Field(description="Fields of TrainingConfig: steps, ...")] = None
    min_reward: Annotated[float | None, Field(description="Runs with a lower reward are not learned")] = None
    gate_margin: Annotated[
        float | None, Field(description="Largest drop of a score that the gate lets pass, 0.05 is 5 points")
    ] = None
    canary_share: Annotated[
        float | None, Field(description=f"Share of the sessions that try a version; {CANARY_SHARE} where none was set")
    ] = None
    canary_promotion: Annotated[
        Literal["never", "better", "non_inferior"] | None, Field(description="What makes a canary the champion")
    ] = None
    canary_margin: Annotated[float | None, Field(description="How much worse is too much for non_inferior")] = None
    recording: Annotated[
        Literal["off", "asked", "all"] | None,
        Field(description="What of the adapter's answers is recorded; `all` where no policy was set"),
    ] = None
    recording_share: Annotated[float | None, Field(description="Share of the sessions that `all` records")] = None
    run_idle_seconds: Annotated[float | None, Field(description="Silence that closes a run")] = None
    judge: Annotated[
        str | None, Field(description="Judge that rewards what nobody else rewards; its scores count from now on")
    ] = None
    keep_last: Annotated[Number | None, Field(description="Newest versions that keep their bytes")] = None
    quiet_hours: Annotated[
        float | None,
        Field(description=f"Hours without traffic or rewards until that is a state; {QUIET_HOURS:g} at first"),
    ] = None
    most_failures: Annotated[
        Number | None,
        Field(description=f"Failures in a row until no training starts any more; {MOST_FAILURES} at first"),
    ] = None
    grader: Annotated[GraderSpec | None, Field(description="Of a task that `create` makes; as in POST /v1/tasks")] = (
        None
    )
    holdout_share: Annotated[
        float | None, Field(gt=0, lt=1, description="Of a task that `create` makes; as in POST /v1/tasks")
    ] = None
    memory: Annotated[
        dict[str, Any] | None, Field(description="Of an adapter that `create` makes; fields of MemoryConfig")
    ] = None

    def plan(self, cron: str | None, training: dict[str, Any] | None) -> LoopPlan:
        terms = {name: getattr(self, name) for name in _GATE_TERMS}
        return LoopPlan(
            cron=cron,
            time_zone=self.time_zone,
            idle_hours=self.idle_hours,
            after=self.after,
            training=training,
            min_reward=self.min_reward,
            settings={name: value for name, value in terms.items() if value is not None},
            judge=self.judge,
            keep_last=self.keep_last,
            quiet_hours=self.quiet_hours,
            most_failures=self.most_failures,
            recording=RecordingWish(self.recording, self.recording_share, self.run_idle_seconds),
        )


class LoopOut(BaseModel):
    name: str
    """The adapter's."""
    adapter: str
    task: str
    state: str
    held: bool
    """Whether it starts no training as long as the state lasts."""
    reason: str
    advice: str
    since: datetime
    schedule: str
    cron: str | None
    time_zone: str | None
    idle_hours: float | None
    after: int
    """New trajectories that must wait."""
    quiet_hours: float
    most_failures: int
    paused: bool
    checked_at: datetime | None
    """When the beat last looked at it; null before the first time."""
    created_at: datetime

    @classmethod
    def fields_of(cls, row: Loop) -> dict[str, Any]:
        return {
            "name": row.adapter.name,
            "adapter": row.adapter.name,
            "task": row.task.name,
            "schedule": row.schedule.name,
            "cron": row.schedule.cron,
            "time_zone": row.schedule.time_zone,
            "idle_hours": row.schedule.idle_hours,
            "after": row.schedule.new_trajectories or 1,
            "paused": row.paused_at is not None,
            **{
                name: getattr(row, name)
                for name in ("state", "held", "reason", "advice", "since", "quiet_hours", "most_failures")
            },
            "checked_at": row.checked_at,
            "created_at": row.created_at,
        }

    @classmethod
    def of(cls, row: Loop) -> "LoopOut":
        return cls(**cls.fields_of(row))


class LoopList(BaseModel):
    data: list[LoopOut]


class LoopSetUpOut(LoopOut):
    setup: list[SetUpPart]
    """What was made, what was changed and what was left as it was."""

    @classmethod
    def with_parts(cls, row: Loop, parts: Sequence[SetUpPart]) -> "LoopSetUpOut":
        return cls(**cls.fields_of(row), setup=list(parts))


class LoopDeletedOut(BaseModel):
    name: str
    schedule: str
    stays: list[str]
    """What the deletion leaves as it is, for people."""


class LoopChangeOut(BaseModel):
    kind: str
    from_state: str | None
    to_state: str | None
    actor: str
    reason: str
    evidence: dict[str, Any]
    at: datetime

    @classmethod
    def of(cls, row: LoopChange) -> "LoopChangeOut":
        return cls.model_validate(row, from_attributes=True)


class LoopReportOut(LoopOut):
    """Everything that `memgen loop show` prints: a loop, and the fields of `LoopReport`, which says what each is."""

    recording: str
    refused: str | None
    judge: str | None
    gate: str
    stages: list[StageCount]
    waiting: WaitsFor
    canary: CanaryProgress | None
    champion: int | None
    champion_since: datetime | None
    attempts: list[JudgedVersion]
    failures: int
    history: list[LoopChangeOut]
    """The newest changes; `GET /v1/loops/{name}/history` has all."""

    @classmethod
    def shown(cls, row: Loop, report: LoopReport, changes: Sequence[LoopChange]) -> "LoopReportOut":
        history = [LoopChangeOut.of(change) for change in changes]
        return cls(**cls.fields_of(row), **vars(report), history=history)
