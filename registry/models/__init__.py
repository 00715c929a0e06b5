"""The rows. Every noun of the registry as a table; rules live in the module of each noun.

Datasets, suites, versions, evaluations and alias moves are immutable: a trigger in the database refuses to update
them. Roots (task, adapter, trajectory, job, API key, ...) carry a `project_id`; all other rows have none and are
reached only through a root. So a query filters by the project, or begins at a root that was found by it.
"""

from registry.models.adapters import (
    CANARY_PROMOTIONS,
    GATE_POLICIES,
    GATE_RULES,
    STRATEGIES,
    Adapter,
    AdapterChange,
    Alias,
    AliasMove,
    Version,
)
from registry.models.declarative import Base, JsonObject
from registry.models.deletions import DELETION_POLICIES, DELETION_SCOPES, Deletion, DeletionDataset, Erasure, Retraining
from registry.models.evaluations import Evaluation, Gate, GateDecision
from registry.models.jobs import JOB_STATES, Job, JobEvent
from registry.models.judging import (
    JUDGE_KINDS,
    JUDGEMENT_STATES,
    TOO_LONG,
    Judge,
    JudgeCall,
    Judgement,
    TaskJudge,
)
from registry.models.loops import LOOP_CHANGES, LOOP_STATES, Loop, LoopChange
from registry.models.projects import SCOPES, ApiKey, IdempotentReply, Project
from registry.models.recordings import (
    CLOSE_REASONS,
    RECORDING_MODES,
    RUN_STATES,
    TURN_KINDS,
    RecordingCount,
    RecordingPolicy,
    Run,
    RunCall,
    RunTurn,
)
from registry.models.responses import StoredResponse
from registry.models.rewards import TrajectoryReward
from registry.models.routes import (
    ROUTE_CHANGES,
    ROUTE_KINDS,
    ROUTE_STATES,
    Exposure,
    Feedback,
    Route,
    RouteArm,
    RouteChange,
    ShadowAnswer,
)
from registry.models.schedules import (
    RUN_OUTCOMES,
    SCHEDULE_CHANGES,
    SCHEDULE_KINDS,
    Schedule,
    ScheduleChange,
    ScheduleRun,
)
from registry.models.trajectories import JUDGE_REWARDS, Dataset, DatasetItem, Suite, SuiteItem, Task, Trajectory
from registry.models.versions import (
    VERSION_CHANGES,
    RetentionPolicy,
    VersionChange,
    VersionImport,
    VersionImportDataset,
    VersionImportTask,
    VersionState,
    VersionTag,
)
from registry.models.webhooks import DELIVERY_STATES, WEBHOOK_EVENTS, OutboxEvent, Webhook, WebhookDelivery

__all__ = [
    "CANARY_PROMOTIONS",
    "CLOSE_REASONS",
    "DELETION_POLICIES",
    "DELETION_SCOPES",
    "DELIVERY_STATES",
    "GATE_POLICIES",
    "GATE_RULES",
    "JOB_STATES",
    "JUDGEMENT_STATES",
    "JUDGE_KINDS",
    "JUDGE_REWARDS",
    "LOOP_CHANGES",
    "LOOP_STATES",
    "RECORDING_MODES",
    "ROUTE_CHANGES",
    "ROUTE_KINDS",
    "ROUTE_STATES",
    "RUN_OUTCOMES",
    "RUN_STATES",
    "SCHEDULE_CHANGES",
    "SCHEDULE_KINDS",
    "SCOPES",
    "STRATEGIES",
    "TOO_LONG",
    "TURN_KINDS",
    "VERSION_CHANGES",
    "WEBHOOK_EVENTS",
    "Adapter",
    "AdapterChange",
    "Alias",
    "AliasMove",
    "ApiKey",
    "Base",
    "Dataset",
    "DatasetItem",
    "Deletion",
    "DeletionDataset",
    "Erasure",
    "Evaluation",
    "Exposure",
    "Feedback",
    "Gate",
    "GateDecision",
    "IdempotentReply",
    "Job",
    "JobEvent",
    "JsonObject",
    "Judge",
    "JudgeCall",
    "Judgement",
    "Loop",
    "LoopChange",
    "OutboxEvent",
    "Project",
    "RecordingCount",
    "RecordingPolicy",
    "RetentionPolicy",
    "Retraining",
    "Route",
    "RouteArm",
    "RouteChange",
    "Run",
    "RunCall",
    "RunTurn",
    "Schedule",
    "ScheduleChange",
    "ScheduleRun",
    "ShadowAnswer",
    "StoredResponse",
    "Suite",
    "SuiteItem",
    "Task",
    "TaskJudge",
    "Trajectory",
    "TrajectoryReward",
    "Version",
    "VersionChange",
    "VersionImport",
    "VersionImportDataset",
    "VersionImportTask",
    "VersionState",
    "VersionTag",
    "Webhook",
    "WebhookDelivery",
]
