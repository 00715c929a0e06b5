"""The matrix R of an adapter: what each version scored on each task, with the metrics of continual learning."""

import uuid
from collections.abc import Mapping, Sequence

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session, load_only

from memgen.evaluation.forgetting import average_accuracy, backward_transfer, forgetting, forward_transfer
from registry.gates.evaluations import ItemCounts, count_items, scores_by_subject, subject_of
from registry.models import Adapter, Evaluation, Task, Version
from registry.versions.ancestry import lineage_tasks, tasks_by_version
from registry.versions.records import list_versions

_MOST = 200
"""Versions that have their metrics in a history; and those of a chain over which they are made beside one another."""


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
    history: list[Metrics]
    """Metrics of every version whose lineage was, oldest first; `metrics` is the last. The newest 200 at most."""


def scores_of(session: Session, adapter: Adapter, versions: Sequence[Version] | None = None) -> ScoresOut:
    """
    Args:
        versions: those to show, oldest first; None shows all. Metrics are left out where their lineage reaches far
            beyond them.
    """
    shown = list_versions(session, adapter) if versions is None else versions
    lineage = _with_ancestors(session, adapter, shown)
    learned = tasks_by_version(session, lineage)
    known = {task.name: task for version in lineage for task in learned[version.id]}
    tasks = list(dict.fromkeys(task.name for version in shown for task in learned.get(version.id, ())))
    if shown and not lineage:  # the chain is long, and of it the tasks are all that is shown
        known = {task.name: task for task in lineage_tasks(session, shown[-1])}
        tasks = list(known)
    bare = subject_of(adapter, None)
    subjects = {version.id: subject_of(adapter, version) for version in (*lineage, *shown)}
    found = scores_by_subject(session, [bare, *subjects.values()], list(known.values()), with_items=False)
    rows = {id_: found[subject] for id_, subject in subjects.items()}
    printed = [
        {task: row[task] for task in tasks if task in row} for row in (found[bare], *(rows[v.id] for v in shown))
    ]
    counts = count_items(session, [evaluation for row in printed for evaluation in row.values()])
    base, *scores = [{task: _score(each, counts[each.id]) for task, each in row.items()} for row in printed]
    history = _history(lineage, learned, rows, found[bare])
    return ScoresOut(
        tasks=tasks,
        base=base,
        versions={str(version.number): row for version, row in zip(shown, scores, strict=True)},
        metrics=history[-1] if history else None,
        history=history,
    )


def _with_ancestors(session: Session, adapter: Adapter, versions: Sequence[Version]) -> Sequence[Version]:
    """The versions and all that they go back to, oldest first; none if those are many, as an adapter's last versions
    go back to all others."""
    ids = {version.id for version in versions}
    if all(version.parent_id is None or version.parent_id in ids for version in versions):
        return versions
    left = _MOST - len(versions)
    older = session.scalars(
        select(Version)
        .where(Version.adapter_id == adapter.id, Version.number < versions[0].number)
        .order_by(Version.number.desc())
        .limit(max(left, 0) + 1)
        .options(load_only(Version.id, Version.number, Version.parent_id))
    ).all()
    return [*reversed(older), *versions] if len(older) <= left else ()


def _history(
    lineage: Sequence[Version],
    learned: Mapping[uuid.UUID, Sequence[Task]],
    rows: Mapping[uuid.UUID, Mapping[str, Evaluation]],
    base: Mapping[str, Evaluation],
) -> list[Metrics]:
    """Metrics of the newest versions of which no score is missing, oldest first. Of a longer chain than these are many
    it is one's alone, since each looks at all of its ancestors."""
    by_id = {version.id: version for version in lineage}
    complete: set[uuid.UUID] = set()
    for version in lineage:  # a parent comes before its children
        names = [task.name for task in learned[version.id]]
        is_measured = bool(names) and all(name in rows[version.id] and name in base for name in names)
        if is_measured and (version.parent_id is None or version.parent_id in complete):
            complete.add(version.id)
    found: list[Metrics] = []
    for version in reversed(lineage):
        if version.id not in complete:
            continue
        chain = _chain(version, by_id)
        if found and (len(found) == _MOST or len(chain) > _MOST):
            break
        found.append(_metrics(chain, learned, rows, base))
    return found[::-1]


def _chain(version: Version, by_id: Mapping[uuid.UUID, Version]) -> list[Version]:
    chain = [version]
    while chain[-1].parent_id is not None:
        chain.append(by_id[chain[-1].parent_id])
    return chain[::-1]


def _metrics(
    chain: Sequence[Version],
    learned: Mapping[uuid.UUID, Sequence[Task]],
    rows: Mapping[uuid.UUID, Mapping[str, Evaluation]],
    base: Mapping[str, Evaluation],
) -> Metrics:
    """Metrics of the last version of a `chain` of ancestors that were measured on all they learned."""
    tasks = [task.name for task in learned[chain[-1].id]]
    learned_at = [
        next(n for n, version in enumerate(chain) if task in learned[version.id]) for task in learned[chain[-1].id]
    ]
    matrix: list[list[float | None]] = [
        [rows[v.id][task].score if task in rows[v.id] else None for task in tasks] for v in chain
    ]
    return Metrics(
        version=chain[-1].number,
        acc=average_accuracy(matrix, learned_at),
        bwt=backward_transfer(matrix, learned_at),
        fwt=forward_transfer(matrix, [base[task].score for task in tasks], learned_at),
        forgetting=dict(zip(tasks, forgetting(matrix, learned_at), strict=True)),
    )


def _score(found: Evaluation, counts: ItemCounts) -> Score:
    return Score(
        score=found.score,
        items=counts.items,
        left_out=counts.left_out,
        suite=found.suite.number,
        seconds=found.seconds,
    )
