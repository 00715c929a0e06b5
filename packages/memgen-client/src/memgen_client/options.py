"""Options of calls that have many, as keyword arguments: those that are left out keep the service's default.

What each means is said where the service says it: `/docs` of the API, `memgen COMMAND --help`.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from memgen_client.json_values import Json

CanaryPromotion = Literal["never", "better", "non_inferior"]


class AdapterSettings(TypedDict, total=False):
    replay_share: float
    gate_margin: float
    gate_rule: str
    gate_level: float
    gate_settled: bool
    gate_gain: bool
    gate_policy: str
    canary_share: float
    canary_promotion: str
    canary_margin: float
    retry_replay_share: float | None
    """None turns retries off."""


class NewAdapter(AdapterSettings, total=False):
    description: str
    strategy: str
    memory: Json
    """Fields of MemoryConfig: latents, ..."""


class ArmWeight(TypedDict):
    version: int
    weight: float


class RouteTerms(TypedDict, total=False):
    """`arms` of an ab route; `version` and `share` of the others."""

    arms: Sequence[ArmWeight] | None
    version: int | None
    share: float | None
    level: float
    smallest_effect: float
    reward_source: str | None
    promotion: CanaryPromotion
    margin: float | None
    replace: bool
    reason: str


class Environment(TypedDict, total=False):
    """Where items to play come from, instead of the task's trajectories."""

    name: str
    options: Json
    items: int


class TrainOptions(TypedDict, total=False):
    method: Literal["sft", "grpo", "grpo_recorded"]
    form: Literal["cache", "embedding", "lora"] | None
    """`lora` for a plain LoRA of the base, or the form of a memory; by default as the adapter's memory says."""
    training: Json
    """Fields of TrainingConfig (sft) or GrpoConfig."""
    environment: Environment | None
    parent: int | None
    """Version to go on from, 0 for none; by default the champion."""
    min_reward: float
    insights: Sequence[str] | None
    promote: bool


class TriggerOptions(TypedDict, total=False):
    tasks: Sequence[str] | None
    environment: Environment | None
    training: Json
    """Fields of TriggerConfig."""
    min_reward: float
    promote: bool


class AnalysisTerms(TypedDict, total=False):
    """How much is looked at."""

    items: int
    least_clusters: int
    most_clusters: int
    interventions: bool
    ablations: bool
    against: int | None
    """Version of the same adapter whose latents are compared with this one's."""
    seed: int


class AnalyzeOptions(TypedDict, total=False):
    tasks: Sequence[str] | None
    """Whose held-out items are answered; by default those that the version has learned."""
    analysis: AnalysisTerms | None
    judge: str | None
    """Names the kinds of wrong answers; without one, rules do."""
    max_calls: int


class JudgingOptions(TypedDict, total=False):
    max_calls: int
    max_tokens: int | None
    unrewarded: bool
    held_out: bool
    again: bool


class JudgeSettings(TypedDict, total=False):
    scale: int
    group_size: int
    temperature: float | None
    max_answer_tokens: int
    max_characters: int
    too_long: str
    daily_calls: int


class TaskChange(TypedDict, total=False):
    judge: str | None
    """Name of the judge of its new trajectories; None for none."""
    judge_rewards: Literal["apart", "fill"]


class When(TypedDict, total=False):
    """`cron` (with `time_zone`) or `idle_hours`, each with `new_trajectories` or without, or that alone."""

    cron: str | None
    time_zone: str | None
    new_trajectories: int | None
    idle_hours: float | None


class ScheduleOptions(When, total=False):
    training: Json
    min_reward: float
    promote: bool


class ScheduleChange(ScheduleOptions, total=False):
    paused: bool


class LoopOptions(TypedDict, total=False):
    create: bool
    every: str | None
    time_zone: str | None
    idle_hours: float | None
    after: int | None
    training: Json | None
    min_reward: float | None
    gate_margin: float | None
    canary_share: float | None
    canary_promotion: CanaryPromotion | None
    canary_margin: float | None
    recording: Literal["off", "asked", "all"] | None
    recording_share: float | None
    run_idle_seconds: float | None
    judge: str | None
    keep_last: int | None
    quiet_hours: float | None
    most_failures: int | None
    grader: Json | None
    holdout_share: float | None
    memory: Json | None


class WebhookChange(TypedDict, total=False):
    url: str
    events: Sequence[str]
    """Replaces all of them; empty for all."""
    enabled: bool


class TrajectoryFilter(TypedDict, total=False):
    task: str | None
    session_id: str | None
    held_out: bool | None
    reward_source: str | None
    rewarded: bool | None
    """Only those that have a reward, or that have none."""
    min_reward: float | None
    max_reward: float | None
    text: str | None
    """Words of the conversation: all of them, "in a row", `or` between alternatives, `-` before what must not be there.
    They are found seconds after an upload."""
    adapter_version: str | None
    """The version that answered, as `bot@7`."""
    include_messages: bool
    newest: bool
    """The newest first."""


class FeedbackFilter(TypedDict, total=False):
    search: str | None
    """Words of the comment."""
    source: str | None
    completion_id: str | None
    run_id: str | None
    session_id: str | None
    trajectory_id: str | None
    min_reward: float | None
    max_reward: float | None


class RunFilter(TypedDict, total=False):
    task: str | None
    session_id: str | None
    completion_id: str | None
    state: Literal["open", "closing", "closed", "refused"] | None


class JudgementFilter(TypedDict, total=False):
    judge: str | None
    task: str | None
    trajectory: str | None
    state: Literal["scored", "undecided", "unparsable", "refused", "too_long"] | None


class SamplingOptions(TypedDict, total=False):
    """OpenAI's, and a few of the service's own."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    logit_bias: Mapping[str, float]
    stop: str | Sequence[str]
    seed: int
    n: int
    user: str


class AnswerOptions(SamplingOptions, total=False):
    max_completion_tokens: int
    min_tokens: int
    logprobs: bool
    top_logprobs: int
    tools: Sequence[Json]
    tool_choice: str | Json
    parallel_tool_calls: bool
    response_format: Json
    metadata: Mapping[str, str]


class TextOptions(SamplingOptions, total=False):
    logprobs: int
