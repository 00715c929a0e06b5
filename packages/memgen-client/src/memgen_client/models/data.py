"""Tasks, trajectories, what was uploaded, recorded, rewarded and deleted."""

from datetime import datetime
from typing import ClassVar

from memgen_client.json_values import JsonObject, JsonValue
from memgen_client.models.model import Model


class Task(Model):
    shown: ClassVar[tuple[str, ...]] = ("name", "grader", "trajectories", "held_out", "judge", "created_at")

    id: str
    name: str
    description: str
    grader: JsonObject
    holdout_share: float
    shared_turns: int
    trajectories: int
    held_out: int
    """How many are kept for evaluation, never trained on."""
    judge: str | None
    """Judges the task's new trajectories by itself."""
    judge_rewards: str
    """`fill`: used where there is no other reward; `apart`: never."""
    created_at: datetime


class ImportLine(Model):
    line: int
    """Line number from 1; in a list, the place in it; of documents, their number."""
    status: str
    """`accepted`, `duplicate` or `refused`."""
    id: str | None
    code: str | None
    reason: str | None


class LineWarning(Model):
    line: int
    code: str
    reason: str


class ImportReport(Model):
    """What became of an upload, line by line."""

    accepted: int
    duplicate: int
    refused: int
    held_out: int
    complete: bool
    """False if it was not read to its end; what was accepted is kept."""
    stopped: str | None
    lines_read: int
    refused_by_code: dict[str, int]
    lines: list[ImportLine]
    lines_left_out: int
    warned_by_code: dict[str, int]
    warned: list[LineWarning]
    warnings: list[str]


class Trajectory(Model):
    """`messages`, `tools` and `sampled` are None where a listing was asked for without them."""

    shown: ClassVar[tuple[str, ...]] = ("id", "task", "session_id", "reward", "held_out", "tokens", "created_at")

    id: str
    task: str
    trajectory_id: str | None
    session_id: str | None
    reward: float | None
    reward_source: str | None
    success: bool | None
    adapter_version: str | None
    metadata: JsonObject
    held_out: bool
    """Kept for evaluation, never trained on."""
    tokens: int
    content_hash: str
    created_at: datetime
    messages: list[JsonObject] | None = None
    tools: list[JsonObject] | None = None
    sampled: list[JsonValue] | None = None
    """Of a recorded run, by assistant turn: token ids, log probabilities, settings (docs/recording.md)."""


class GivenReward(Model):
    source: str
    reward: float
    completion_id: str | None
    comment: str
    actor: str
    feedback: int | None
    at: datetime


class RewardedTrajectory(Trajectory):
    rewards: list[GivenReward]
    """All that were given, in order of arrival."""


class TrajectoryLineage(Model):
    """Where a trajectory went."""

    id: str
    task: str
    held_out: bool
    suites: list[str]
    datasets: list[JsonObject]
    jobs: list[str]
    versions: list[JsonObject]


class RecordingPolicy(Model):
    adapter: str | None
    """None: the whole project."""
    mode: str
    share: float
    task: str | None
    idle_seconds: float | None
    changed_at: datetime | None
    actor: str | None


class Recordings(Model):
    policies: list[RecordingPolicy]
    recorded: int
    waiting: int
    behind_seconds: float
    stuck: int
    """Answers in recorders that have moved nothing for five minutes."""
    not_recorded: dict[str, int]
    runs: dict[str, int]


class Run(Model):
    """What was recorded of an agent's work."""

    shown: ClassVar[tuple[str, ...]] = ("id", "task", "session_id", "state", "turns", "opened_at", "trajectory_id")

    id: str
    task: str
    session_id: str | None
    state: str
    close_reason: str | None
    opened_at: datetime
    last_at: datetime
    closed_at: datetime | None
    calls: int
    turns: int
    branch_of: str | None
    trajectory_id: str | None
    refusal_code: str | None
    refusal_reason: str | None


class RunCall(Model):
    completion_id: str
    choice: int
    turn: int
    at: datetime


class RunDetail(Run):
    recorded: list[RunCall]
    messages: list[JsonObject]
    tools: list[JsonObject] | None


class Feedback(Model):
    shown: ClassVar[tuple[str, ...]] = ("id", "reward", "source", "model", "comment", "at")

    id: int
    completion_id: str | None
    run_id: str | None
    session_id: str | None
    trajectory_id: str | None
    reward: float
    source: str
    comment: str
    actor: str
    model: str | None
    """The exact version that gave the answer, as `support-bot@7`; `base`, or an upstream's."""
    counted: bool
    trajectories: list[str]
    at: datetime


class ReceivedFeedback(Feedback):
    route: int | None
    runs: list[str]
    stopped: bool
    """Whether it stopped a canary, which is worse than the champion."""
    promoted: bool
    """Whether it made a canary the champion."""


class Retraining(Model):
    """One version that is trained anew without the data; the steps of a chain run one after another."""

    chain: int
    adapter: str
    task: str
    replaces: int
    job: str | None
    state: str
    version: int | None
    stopped: str | None


class Deletion(Model):
    id: str | None
    """None for a dry run."""
    scope: str
    policy: str
    actor: str
    reason: str
    affected: JsonObject
    trajectories: list[dict[str, str]]
    bytes_gone: bool
    created_at: datetime
    retrainings: list[Retraining]
    jobs_waiting_for_broker: list[str]


class Garbage(Model):
    dry_run: bool
    objects: list[str]
    bytes: int
    folders: list[str]
