"""Comparison of two versions: scores on each task, settings, data, loss curves, verdicts, and all differences."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from registry.gates.evaluations import newest_scores, subject_of
from registry.gates.verdict import gate_of
from registry.models import Gate, Job, JsonObject, Version
from registry.versions.ancestry import learned_tasks


@dataclass(frozen=True)
class ComparedVersion:
    version: Version
    scores: dict[str, float]
    """Its row of R: the score by task, on the newest suite that it was evaluated on."""
    suites: dict[str, int]
    """Number of that suite by task; scores of different suites are not comparable item by item."""
    config: JsonObject
    """Its job's parameters, with the base and the code's version."""
    data: JsonObject
    """Manifest and hash of its dataset."""
    losses: list[float]
    """Training loss by optimizer step."""
    gate: Gate | None


@dataclass(frozen=True)
class VersionComparison:
    left: ComparedVersion
    right: ComparedVersion
    changes: dict[str, float]
    """Score of the right less that of the left, by task that both were evaluated on."""
    different: dict[str, tuple[Any, Any]]
    """Settings and facts of the data that differ, by dotted name: (left, right)."""


def compare_versions(session: Session, left: Version, right: Version) -> VersionComparison:
    one, other = _side(session, left), _side(session, right)
    return VersionComparison(
        left=one,
        right=other,
        changes={task: other.scores[task] - score for task, score in one.scores.items() if task in other.scores},
        different=differences({"config": one.config, "data": one.data}, {"config": other.config, "data": other.data}),
    )


def differences(left: JsonObject, right: JsonObject, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Leaves that differ: `{"a": {"b": 1}}` and `{"a": {"b": 2}}` give `{"a.b": (1, 2)}`; None stands for absent."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted(left.keys() | right.keys()):
        one, other = left.get(key), right.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found |= differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found[f"{prefix}{key}"] = (one, other)
    return found


def _side(session: Session, version: Version) -> ComparedVersion:
    job = session.get_one(Job, version.job_id)
    rows = newest_scores(session, subject_of(version.adapter, version), learned_tasks(session, version))
    return ComparedVersion(
        version=version,
        scores={task: row.score for task, row in rows.items()},
        suites={task: row.suite.number for task, row in rows.items()},
        config={
            **job.params,
            "base_model": version.base_model,
            "base_revision": version.base_revision,
            "code_version": version.code_version,
        },
        data={**version.dataset.manifest, "hash": version.dataset.content_hash},
        losses=[float(loss) for loss in version.report.get("losses", [])],
        gate=gate_of(session, version),
    )
