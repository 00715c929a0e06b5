"""R of an adapter: what each version scored on each task, and what continual learning made of it."""

import uuid

from pydantic import BaseModel
from sqlalchemy.orm import Session

from memgen.evaluation.forgetting import average_accuracy, backward_transfer, forgetting, forward_transfer
from registry.evaluations import newest_scores, subject_of
from registry.models import Adapter, Evaluation, Task, Version
from registry.versions import learned_tasks, lineage, list_versions


class Score(BaseModel):
    score: float
    items: int
    suite: int
    """Number of the suite; scores of one task are comparable when it is equal."""
    seconds: float


class Metrics(BaseModel):
    """Over the lineage of one version, its tasks in the order they were learned."""

    version: int
    acc: float
    bwt: float | None
    fwt: float | None
    forgetting: dict[str, float | None]


class ScoresOut(BaseModel):
    tasks: list[str]
    base: dict[str, Score]
    versions: dict[str, dict[str, Score]]
    """By version number and task; a task is absent where it was not measured."""
    metrics: Metrics | None
    """Of the newest version whose lineage was measured on all its tasks."""


def scores_of(session: Session, adapter: Adapter) -> ScoresOut:
    versions = list_versions(session, adapter)
    tasks: dict[str, Task] = {}
    for version in versions:
        for task in learned_tasks(version):
            tasks.setdefault(task.name, task)
    found = list(tasks.values())
    base = newest_scores(session, subject_of(adapter, None), found)
    rows = {v.id: newest_scores(session, subject_of(adapter, v), found) for v in versions}
    metrics = None
    for version in reversed(versions):
        metrics = _metrics(version, rows, base)
        if metrics:
            break
    return ScoresOut(
        tasks=list(tasks),
        base=_out(base),
        versions={str(v.number): _out(rows[v.id]) for v in versions},
        metrics=metrics,
    )


def _metrics(
    version: Version, rows: dict[uuid.UUID, dict[str, Evaluation]], base: dict[str, Evaluation]
) -> Metrics | None:
    chain = lineage(version)
    tasks = [task.name for task in learned_tasks(version)]
    learned_at = [next(n for n, v in enumerate(chain) if v.dataset.task.name == task) for task in tasks]
    matrix: list[list[float | None]] = [
        [rows[v.id][task].score if task in rows[v.id] else None for task in tasks] for v in chain
    ]
    complete = all(matrix[n][j] is not None for j, row in enumerate(learned_at) for n in range(row, len(chain)))
    if not complete or any(task not in base for task in tasks):
        return None
    return Metrics(
        version=version.number,
        acc=average_accuracy(matrix, learned_at),
        bwt=backward_transfer(matrix, learned_at),
        fwt=forward_transfer(matrix, [base[task].score for task in tasks], learned_at),
        forgetting=dict(zip(tasks, forgetting(matrix, learned_at), strict=True)),
    )


def _out(row: dict[str, Evaluation]) -> dict[str, Score]:
    return {
        task: Score(score=e.score, items=len(e.items), suite=e.suite.number, seconds=e.seconds)
        for task, e in row.items()
    }
