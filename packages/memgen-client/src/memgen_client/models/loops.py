"""Loops and schedules: what makes an adapter learn by itself, and what it did."""

from datetime import datetime
from typing import ClassVar

from memgen_client.json_values import JsonObject
from memgen_client.models.model import Model


class LastJob(Model):
    id: str
    state: str


class Schedule(Model):
    shown: ClassVar[tuple[str, ...]] = ("name", "adapter", "task", "kind", "paused", "waiting", "created_at")

    name: str
    adapter: str
    task: str
    kind: str
    cron: str | None
    time_zone: str | None
    new_trajectories: int | None
    idle_hours: float | None
    training: JsonObject
    min_reward: float
    promote: bool
    paused: bool
    next_runs: list[datetime]
    """Next times of a cron expression; empty for other schedules."""
    waiting: int
    """Trajectories that it counts as new."""
    last_job: LastJob | None
    created_at: datetime


class ScheduleRun(Model):
    outcome: str
    due_at: datetime
    at: datetime
    missed: int
    """Later due times that this run made up for as well."""
    new_trajectories: int
    job_id: str | None
    reason: str


class ScheduleEdit(Model):
    kind: str
    actor: str
    before: JsonObject
    after: JsonObject
    at: datetime


class Loop(Model):
    shown: ClassVar[tuple[str, ...]] = ("name", "task", "state", "reason", "since", "paused")

    name: str
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
    created_at: datetime


class SetUpPart(Model):
    part: str
    outcome: str
    """`made`, `changed` or `kept`."""
    text: str


class LoopSetUp(Loop):
    setup: list[SetUpPart]


class LoopDeleted(Model):
    name: str
    schedule: str
    stays: list[str]
    """What the deletion leaves as it is, for people."""


class LoopChange(Model):
    kind: str
    from_state: str | None
    to_state: str | None
    actor: str
    reason: str
    evidence: JsonObject
    at: datetime


class StageCount(Model):
    """How often a stage of the loop was passed."""

    stage: str
    day: int
    week: int
    total: int
    last: datetime | None


class NotCounted(Model):
    unrewarded: int
    low_reward: int
    failed: int
    held_out: int


class WaitsFor(Model):
    """What the next training waits for."""

    new: int
    enough: int
    not_counted: NotCounted
    min_reward: float
    next_run: datetime | None
    why_not: str | None
    """Why no training starts now; None if one would, at the next due time."""
    last_skip: str | None


class CanaryProgress(Model):
    route: int
    version: int
    share: float
    since: datetime
    answers: int
    rewarded: int
    sessions_needed: int
    days_needed: float | None


class JudgedVersion(Model):
    version: int
    outcome: str
    at: datetime
    reason: str


class LoopReport(Loop):
    """What a loop did in the last day, week and in all, what waits, and why not."""

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
    history: list[LoopChange]
