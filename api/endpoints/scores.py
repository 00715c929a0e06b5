"""The matrix R of an adapter: what each version scored on each task, with the metrics of continual learning."""

import uuid
from collections.abc import Sequence

from pydantic import BaseModel
from sqlalchemy.orm import Session

from memgen.evaluation.forgetting import average_accuracy, backward_transfer, forgetting, forward_transfer
from registry.gates.evaluations import scores_by_subject, subject_of
from registry.models import Adapter, Evaluation, Task, Version
from registry.versions.ancestry import lineage_tasks, tasks_by_version
from registry.versions.records import list_versions


class Score(BaseModel):
    score: float
    items: int
    left_out: int
    """How many of them could not be judged and do not count."""
    suite: int
    """Number of the suite; scores of one task are comparable when it is equal."""
    seconds: float


class Metrics(BaseModel):
    """Metrics over the lineage of one version, with its tasks in the order in which they were learned."""

    version: int
    acc: float
    bwt: float | None
    fwt: float | None
    forgetting: dict[str, float | None]


class ScoresOut(BaseModel):
    tasks: list[str]
    base: dict[str, Score]
    versions: dict[str, dict[str, Score]]
    """Scores by version number and task; a task is absent where it was not measured."""
    metrics: Metrics | None
    """Metrics of the newest version whose lineage was measured on all its tasks."""


def scores_of(session: Session, adapter: Adapter, versions: Sequence[Version] | None = None) -> ScoresOut:
    """
    Args:
        versions: those to show, oldest first; None shows all. Metrics are left out where a lineage reaches beyond them.
    """
    versions = list_versions(session, adapter) if versions is None else versions
    ids = {version.id for version in versions}
    whole = all(version.parent_id is None or version.parent_id in ids for version in versions)
    learned = tasks_by_version(session, versions) if whole else {}
    tasks = {task.name: task for version in versions for task in learned.get(version.id, ())}
    if not whole:  # the chains may be long, and of them the tasks are all that is shown
        tasks = {task.name: task for task in lineage_tasks(session, versions[-1])}
    subjects = {version.id: subject_of(adapter, version) for version in versions}
    found = scores_by_subject(session, [subject_of(adapter, None), *subjects.values()], list(tasks.values()))
    base, rows = found[subject_of(adapter, None)], {id_: found[subject] for id_, subject in subjects.items()}
    chains: dict[uuid.UUID, list[Version]] = {}
    for version in versions:
        chains[version.id] = [*(chains.get(version.parent_id, ()) if version.parent_id else ()), version]
    metrics = None
    for version in reversed(versions) if whole else ():
        metrics = _metrics(chains[version.id], learned, rows, base)
        if metrics:
            break
    return ScoresOut(
        tasks=list(tasks),
        base=_out(base),
        versions={str(v.number): _out(rows[v.id]) for v in versions},
        metrics=metrics,
    )


def _metrics(
    chain: Sequence[Version],
    learned: dict[uuid.UUID, list[Task]],
    rows: dict[uuid.UUID, dict[str, Evaluation]],
    base: dict[str, Evaluation],
) -> Metrics | None:
    """Metrics of the last version of a `chain` of ancestors; None where a score is missing."""
    tasks = [task.name for task in learned[chain[-1].id]]
    learned_at = [
        next(n for n, version in enumerate(chain) if task in learned[version.id]) for task in learned[chain[-1].id]
    ]
    matrix: list[list[float | None]] = [
        [rows[v.id][task].score if task in rows[v.id] else None for task in tasks] for v in chain
    ]
    complete = all(matrix[n][j] is not None for j, row in enumerate(learned_at) for n in range(row, len(chain)))
    if not complete or any(task not in base for task in tasks):
        return None
    return Metrics(
        version=chain[-1].number,
        acc=average_accuracy(matrix, learned_at),
        bwt=backward_transfer(matrix, learned_at),
        fwt=forward_transfer(matrix, [base[task].score for task in tasks], learned_at),
        forgetting=dict(zip(tasks, forgetting(matrix, learned_at), strict=True)),
    )


def _out(row: dict[str, Evaluation]) -> dict[str, Score]:
    return {
        task: Score(score=e.score, items=len(e.items), left_out=_left_out(e), suite=e.suite.number, seconds=e.seconds)
        for task, e in row.items()
    }


def _left_out(evaluation: Evaluation) -> int:
    return sum(bool(item.get("left_out")) for item in evaluation.items)
