"""Adapters, their settings, scores and retention."""

from datetime import datetime
from typing import ClassVar

from memgen_client.json_values import JsonObject
from memgen_client.models.model import Model
from memgen_client.pictures.matrix import matrix
from memgen_client.pictures.tables import table


class Adapter(Model):
    """A named lineage of memories on one base."""

    shown: ClassVar[tuple[str, ...]] = ("name", "strategy", "aliases", "gate_policy", "base_model", "created_at")

    name: str
    description: str
    base_model: str
    base_revision: str
    base_identity: dict[str, str] | None
    """Hashes of the base's tokenizer, chat template and generation config; None until a process has loaded it."""
    strategy: str
    memory: JsonObject
    aliases: dict[str, int]
    """Version number by alias."""
    created_at: datetime
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

    @property
    def champion(self) -> int | None:
        """Number of the version that answers for the adapter's name; None before the first."""
        return self.aliases.get("champion")


class AdapterChange(Model):
    changes: JsonObject
    """Old and new value, `from` and `to`, by setting."""
    actor: str
    reason: str
    at: datetime


class Score(Model):
    score: float
    items: int
    left_out: int
    """How many of them could not be judged and do not count."""
    suite: int
    """Number of the suite; scores of one task are comparable when it is equal."""
    seconds: float


class Metrics(Model):
    """Metrics over the lineage of one version."""

    version: int
    acc: float
    """Mean score over all tasks learned so far."""
    bwt: float | None
    """Backward transfer: mean change of earlier tasks' scores since each was learned; below 0 is forgetting."""
    fwt: float | None
    """Forward transfer: mean gain over the base on a task before it was learned."""
    forgetting: dict[str, float | None]
    """By task, the drop from its best score to the present one."""


class Scores(Model):
    """The matrix R: what the base and each version scored on each task."""

    tasks: list[str]
    base: dict[str, Score]
    versions: dict[str, dict[str, Score]]
    """Scores by version number and task; a task is absent where it was not measured."""
    metrics: Metrics | None
    """Metrics of the newest version whose lineage was measured on all its tasks."""
    history: list[Metrics]
    """Metrics of every version whose lineage was, oldest first; `metrics` is the last. The newest 200 at most."""

    def _repr_html_(self) -> str:
        measured = {"base": self.base, **self.versions}
        rows = [(name, {task: each.score for task, each in scores.items()}) for name, scores in measured.items()]
        return matrix(self.tasks, rows) + ("" if self.metrics is None else _metrics_table(self.metrics))


def _metrics_table(found: Metrics) -> str:
    forgot = [(f"forgetting of {task}", value) for task, value in found.forgetting.items()]
    named = [("ACC", found.acc), ("BWT", found.bwt), ("FWT", found.fwt), *forgot]
    return table([f"version {found.version}", "value"], [[name, value] for name, value in named])


class KeptVersion(Model):
    number: int
    reasons: list[str]


class RetentionPlan(Model):
    """Which versions keep their bytes, and which would lose, or lost, them."""

    keep_last: int
    dry_run: bool
    kept: list[KeptVersion]
    purged: list[int]
