"""Curves that `charts.js` draws: losses over steps, and the scores of an adapter over its versions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from api.endpoints.scores import Metrics, ScoresOut


class Curves(TypedDict):
    x: Sequence[float]
    lines: Mapping[str, Sequence[float | None]]
    """The values of each line, by its label, at each `x`; None where there is none."""


@dataclass(frozen=True)
class MetricRow:
    version: int
    acc: float
    bwt: float | None
    forgetting: float | None
    """Mean over the tasks that were learned before."""


def losses_by_step(data: Iterable[Mapping[str, Any]]) -> Curves:
    """The losses among the data of events; of a step that was done again, after a worker was lost, the last one."""
    losses = {
        each["step"]: each["loss"] for each in data if _is_number(each.get("step")) and _is_number(each.get("loss"))
    }
    steps = sorted(losses)
    return {"x": [float(step) for step in steps], "lines": {"loss": [float(losses[step]) for step in steps]}}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def losses_of(report: Mapping[str, object]) -> Curves:
    """The losses of a training's report, from step 1 on."""
    losses = report.get("losses")
    values = [float(value) for value in losses] if isinstance(losses, list) else []
    return {"x": range(1, len(values) + 1), "lines": {"loss": values}}


def metric_rows(scores: ScoresOut) -> list[MetricRow]:
    """Metrics of each version that has them, oldest first."""
    return [MetricRow(each.version, each.acc, each.bwt, _mean_forgetting(each)) for each in scores.history]


def metrics_by_version(rows: Sequence[MetricRow]) -> Curves:
    lines: dict[str, Sequence[float | None]] = {
        "ACC": [row.acc for row in rows],
        "BWT": [row.bwt for row in rows],
        "forgetting": [row.forgetting for row in rows],
    }
    return {"x": [row.version for row in rows], "lines": lines}


def scores_by_version(scores: ScoresOut) -> Curves:
    """R column by column: a line for each task, over the versions that are shown and were measured on any."""
    measured = [(int(number), row) for number, row in scores.versions.items() if row]
    lines = {task: [row[task].score if task in row else None for _, row in measured] for task in scores.tasks}
    return {"x": [number for number, _ in measured], "lines": lines}


def _mean_forgetting(metrics: Metrics) -> float | None:
    values = [value for value in metrics.forgetting.values() if value is not None]
    return sum(values) / len(values) if values else None
