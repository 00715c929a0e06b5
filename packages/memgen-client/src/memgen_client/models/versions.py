"""Versions: what they were trained from, their gates, their aliases."""

from datetime import datetime
from typing import ClassVar

from memgen_client.json_values import JsonObject, JsonValue
from memgen_client.models.model import Model


class GateDecision(Model):
    """A person's decision on a version that waited."""

    approved: bool
    actor: str
    reason: str
    at: datetime


class Gate(Model):
    passed: bool
    margin: float
    rule: str
    level: float
    policy: str
    decision: GateDecision | None
    """None unless a person approved or rejected it."""
    champion: int | None
    """Version compared with; None is the bare base."""
    comparisons: list[JsonObject]
    reasons: list[str]
    created_at: datetime


class GateAudit(Gate):
    """A gate with the version that it judged."""

    adapter: str
    version: int
    verdict: str
    suites: dict[str, int]
    """Number of the suite that both were scored on, by task."""


class ComparedItem(Model):
    """What champion and candidate answered to one held-out item."""

    shown: ClassVar[tuple[str, ...]] = ("place", "flipped", "champion", "candidate")

    place: int
    """Position of the item in the suite."""
    trajectory_id: str | None
    """None if it was deleted since."""
    champion: JsonObject
    candidate: JsonObject
    flipped: str | None
    """`better`, `worse`, or None."""


class Version(Model):
    shown: ClassVar[tuple[str, ...]] = ("adapter", "number", "verdict", "task", "parent", "created_at")

    adapter: str
    number: int
    verdict: str
    """`passed`, `rejected`, `waiting` for approval, or `unchecked` while its gate has not run."""
    form: str
    """`cache` or `embedding`, a memory; `lora`, a plain LoRA of the base."""
    task: str
    parent: int | None
    dataset_hash: str
    dataset: JsonObject
    job_id: str
    base_model: str
    base_revision: str
    code_version: str
    artifact_hash: str
    report: JsonObject
    gate: Gate | None
    created_at: datetime


class VersionState(Model):
    number: int
    tags: list[str]
    archived_at: datetime | None
    withdrawn_at: datetime | None
    purged_at: datetime | None
    learned_deleted: bool
    """It, or an ancestor, was trained on data that was deleted since."""


class VersionChange(Model):
    kind: str
    actor: str
    reason: str
    evidence: JsonObject
    at: datetime


class VersionLineage(Model):
    """What a version was made from, and what was made from it."""

    adapter: str
    number: int
    ancestors: list[int]
    """Numbers from the first version to the parent."""
    children: list[int]
    replaces: int | None
    """The version in whose place it was trained, without deleted data."""
    job_id: str
    task: str
    dataset_hash: str
    dataset: JsonObject
    trajectories: int
    replayed: int
    deleted: int
    learned_deleted: bool
    base_model: str
    base_revision: str
    code_version: str
    artifact_hash: str
    imported: JsonObject | None
    """Origin, as the imported file describes it."""
    aliases: list[str]
    routes: list[int]
    exposures: int


class ComparedSide(Model):
    number: int
    verdict: str
    reasons: list[str]
    scores: dict[str, float]
    suites: dict[str, int]
    config: JsonObject
    data: JsonObject
    losses: list[float]


class Comparison(Model):
    """Two versions side by side."""

    left: ComparedSide
    right: ComparedSide
    changes: dict[str, float]
    """Score of the right version minus that of the left, by task."""
    different: dict[str, list[JsonValue]]
    """Settings and data that differ, left and right, by dotted name."""


class ImportedVersion(Model):
    adapter: str
    number: int
    created: bool
    """False where the adapter has a version of the same artifact."""
    restored: bool
    """Retention had removed the bytes of that version, and they are back."""
    origin: str
    check_job: str | None
    """The job that judges the version by this installation's gate; no alias moves to it before it has passed."""


class AliasMove(Model):
    shown: ClassVar[tuple[str, ...]] = ("at", "alias", "kind", "from_version", "to_version", "actor", "reason")

    alias: str
    kind: str
    from_version: int | None
    to_version: int
    actor: str
    reason: str
    evidence: JsonObject
    at: datetime


class AliasAt(Model):
    """Where an alias stood at a time."""

    alias: str
    at: datetime
    version: int
    since: AliasMove
    """The move that made it so."""
    until: datetime | None
    """When the alias was moved on; None if it has not been."""
    route: JsonObject | None
    """Number, kind and weights of the route that shared requests for the bare adapter name; for `champion` only."""


class Decided(Model):
    decision: GateDecision
    move: AliasMove | None
    """The move of `champion`; None if the version was rejected."""
