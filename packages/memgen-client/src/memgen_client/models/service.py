"""Keys, judges, webhooks, upstreams, the base, and how the service is."""

from datetime import datetime
from typing import ClassVar

from memgen_client.json_values import JsonObject
from memgen_client.models.model import Model


class Key(Model):
    id: str
    name: str
    hint: str
    scopes: list[str]
    created_at: datetime
    revoked_at: datetime | None


class NewKey(Key):
    key: str
    """Shown this once."""

    def _repr_html_(self) -> str:
        return Key.model_validate(self.model_dump(exclude={"key"}))._repr_html_()  # a saved notebook must not hold it


class Agreement(Model):
    compared: int
    pairs: int
    concordance: float | None
    """Share of the pairs that it orders alike; 0.5 is chance."""


class Judge(Model):
    shown: ClassVar[tuple[str, ...]] = ("name", "kind", "model", "tasks", "created_at")

    name: str
    kind: str
    model: str
    rubric: str
    settings: JsonObject
    reward_source: str
    tasks: list[str]
    created_at: datetime


class JudgeDetail(Judge):
    judgements: dict[str, int]
    mean_score: float | None
    agreement: Agreement


class Judgement(Model):
    shown: ClassVar[tuple[str, ...]] = ("at", "judge", "task", "trajectory", "state", "score", "reward")

    id: str
    judge: str
    trajectory: str
    task: str
    state: str
    score: float | None
    reason: str
    verdict: JsonObject
    group: str | None
    model: str
    prompt_hash: str
    calls: int
    prompt_tokens: int
    answer_tokens: int
    job_id: str
    reward: float | None
    reward_source: str | None
    at: datetime


class Webhook(Model):
    name: str
    url: str
    events: list[str]
    """Empty for all."""
    enabled: bool
    disabled_reason: str | None
    former_secret_until: datetime | None
    failing_since: datetime | None
    deliveries: dict[str, int]
    created_at: datetime


class WebhookSecret(Webhook):
    secret: str
    """Shown this once."""

    def _repr_html_(self) -> str:
        return Webhook.model_validate(self.model_dump(exclude={"secret"}))._repr_html_()


class Delivery(Model):
    shown: ClassVar[tuple[str, ...]] = ("id", "event", "state", "attempts", "last_status", "happened_at")

    id: str
    message_id: str
    event: str
    data: JsonObject
    state: str
    attempts: int
    next_attempt_at: datetime | None
    last_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    happened_at: datetime


class Upstream(Model):
    name: str
    models: list[str]
    has_key: bool
    max_concurrent: int
    requests: int


class UpstreamCheck(Model):
    name: str
    ok: bool
    detail: str
    seconds: float
    models: int | None
    missing: list[str]


class Base(Model):
    """The base that the service serves."""

    name: str
    revision: str
    identity: dict[str, str]
    context_tokens: int
    accepted: bool
    refused: str | None
    """Why the base can't be worked with."""
    profile: JsonObject | None
    example: JsonObject | None


class ServedModel(Model):
    """What `model` of a request may be."""

    id: str
    object: str
    created: int
    owned_by: str


class Liveness(Model):
    status: str


class Readiness(Model):
    status: str
    checks: dict[str, str]
    """`ok`, or what is wrong, by part."""
