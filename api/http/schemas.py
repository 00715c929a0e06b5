"""How rows look over HTTP: one schema a row, shared by the endpoints that return it."""

import operator
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

from api.http.body_model import BodyModel
from registry.adapters import AdapterSettings
from registry.gates.verdict import verdict
from registry.models import Adapter, Alias, AliasMove, ApiKey, Gate, GateDecision, Job, JobEvent, Version, VersionChange


class Strict(BodyModel):
    """A request body: unknown fields and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


ModelT = TypeVar("ModelT", bound=BaseModel)


def with_settings(model: type[ModelT]) -> type[ModelT]:
    """Class decorator: `model` with the fields of `registry.adapters.AdapterSettings`, their defaults and meanings."""
    return _with_settings(model, lambda setting: (setting.type, setting.default), hashed=True)


def with_required_settings(model: type[ModelT]) -> type[ModelT]:
    """Class decorator: as `with_settings`, but without defaults, for a reply, which always has them all."""
    return _with_settings(model, lambda setting: (setting.type, ...))


def with_optional_settings(model: type[ModelT]) -> type[ModelT]:
    """Class decorator: as `with_settings`, but every setting may be left out or null, for a change of some of them."""
    return _with_settings(model, lambda setting: (setting.type | None, None))


def _with_settings(
    model: type[ModelT], typed: Callable[[Any], tuple[Any, Any]], *, hashed: bool = False
) -> type[ModelT]:
    """`hashed` for a body that `Idempotency-Key` is kept with: one sent to the release before has the same hash."""
    added: dict[str, Any] = {}
    for setting in fields(AdapterSettings):
        kind, default = typed(setting)
        exclude = partial(operator.eq, default) if hashed and setting.metadata["later"] else None
        added[setting.name] = (kind, Field(default, description=setting.metadata["meaning"], exclude_if=exclude))
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, __module__=model.__module__, **added)


@with_required_settings
class AdapterOut(BaseModel):
    name: str
    description: str
    base_model: str
    base_revision: str
    base_identity: dict[str, str] | None = None
    """Hashes of the base's tokenizer, chat template and generation config; null until a process has loaded it."""
    strategy: str
    memory: dict[str, Any]
    aliases: dict[str, int]
    """Version number by alias."""
    created_at: datetime

    @classmethod
    def of(cls, row: Adapter, aliases: Sequence[Alias]) -> "AdapterOut":
        return cls(
            name=row.name,
            description=row.description,
            base_model=row.base_model,
            base_revision=row.base_revision,
            base_identity=row.base_identity,
            strategy=row.strategy,
            memory=row.memory,
            aliases={alias.name: alias.version.number for alias in aliases},
            created_at=row.created_at,
            **asdict(AdapterSettings.of(row)),
        )


class GateDecisionOut(BaseModel):
    """A person's decision on a version that waited."""

    approved: bool
    actor: str
    reason: str
    at: datetime

    @classmethod
    def of(cls, row: GateDecision) -> "GateDecisionOut":
        return cls(approved=row.approved, actor=row.actor, reason=row.reason, at=row.at)


class GateOut(BaseModel):
    passed: bool
    margin: float
    rule: str
    level: float
    policy: str
    decision: GateDecisionOut | None
    """Null unless a person approved or rejected it."""
    champion: int | None
    """Version compared with; null is the bare base."""
    comparisons: list[dict[str, Any]]
    reasons: list[str]
    created_at: datetime

    @classmethod
    def of(cls, row: Gate) -> "GateOut":
        return cls(
            passed=row.passed,
            margin=row.margin,
            rule=row.rule,
            level=row.level,
            policy=row.policy,
            decision=GateDecisionOut.of(row.decision) if row.decision else None,
            champion=row.champion.number if row.champion else None,
            comparisons=row.comparisons,
            reasons=row.reasons,
            created_at=row.created_at,
        )


class VersionOut(BaseModel):
    adapter: str
    number: int
    verdict: str
    """`passed`, `rejected`, `waiting` for approval, or `unchecked` while its gate has not run."""
    form: str
    """`cache` or `embedding`, a memory; `lora`, a plain LoRA of the base."""
    task: str
    parent: int | None
    dataset_hash: str
    dataset: dict[str, Any]
    job_id: uuid.UUID
    base_model: str
    base_revision: str
    code_version: str
    artifact_hash: str
    report: dict[str, Any]
    gate: GateOut | None
    created_at: datetime

    @classmethod
    def of(cls, row: Version, gate: Gate | None) -> "VersionOut":
        return cls(
            adapter=row.adapter.name,
            number=row.number,
            verdict=verdict(gate),
            form=row.form,
            task=row.dataset.task.name,
            parent=row.parent.number if row.parent else None,
            dataset_hash=row.dataset.content_hash,
            dataset=row.dataset.manifest,
            job_id=row.job_id,
            base_model=row.base_model,
            base_revision=row.base_revision,
            code_version=row.code_version,
            artifact_hash=row.artifact_hash,
            report=row.report,
            gate=GateOut.of(gate) if gate else None,
            created_at=row.created_at,
        )


class AliasMoveOut(BaseModel):
    alias: str
    kind: str
    from_version: int | None
    to_version: int
    actor: str
    reason: str
    evidence: dict[str, Any]
    at: datetime

    @classmethod
    def of(cls, row: AliasMove) -> "AliasMoveOut":
        return cls(
            alias=row.alias,
            kind=row.kind,
            from_version=row.from_version.number if row.from_version else None,
            to_version=row.to_version.number,
            actor=row.actor,
            reason=row.reason,
            evidence=row.evidence,
            at=row.at,
        )


class JobOut(BaseModel):
    id: uuid.UUID
    kind: str
    state: str
    adapter: str | None
    params: dict[str, Any]
    attempt: int
    progress: dict[str, Any]
    result: dict[str, Any] | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    waits_for_broker: bool = False
    """Queued, and not handed to the broker: it is just about to be, or the broker is down. Then it is sent later."""

    @classmethod
    def of(cls, row: Job) -> "JobOut":
        return cls(
            id=row.id,
            kind=row.kind,
            state=row.state,
            adapter=row.adapter.name if row.adapter else None,
            params=row.params,
            attempt=row.attempt,
            progress=row.progress,
            result=row.result,
            error=row.error,
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            waits_for_broker=row.state == "queued" and row.enqueued_at is None,
        )


class JobEventOut(BaseModel):
    seq: int
    at: datetime
    level: str
    message: str
    data: dict[str, Any]

    @classmethod
    def of(cls, row: JobEvent) -> "JobEventOut":
        return cls(seq=row.seq, at=row.at, level=row.level, message=row.message, data=row.data)


class KeyOut(BaseModel):
    id: uuid.UUID
    name: str
    hint: str
    scopes: list[str]
    created_at: datetime
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: ApiKey) -> "KeyOut":
        return cls(
            id=row.id,
            name=row.name,
            hint=row.hint,
            scopes=row.scopes,
            created_at=row.created_at,
            revoked_at=row.revoked_at,
        )


class VersionChangeOut(BaseModel):
    kind: str
    actor: str
    reason: str
    evidence: dict[str, Any]
    at: datetime

    @classmethod
    def of(cls, row: VersionChange) -> "VersionChangeOut":
        return cls.model_validate(row, from_attributes=True)
