"""Evaluations: the entries of R, one for each version (or the bare base) and suite."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, false, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, defer, joinedload

from registry.clock import utc_now
from registry.database import one_of
from registry.models import Adapter, Evaluation, Suite, Task, Version


@dataclass(frozen=True)
class EvaluatedSubject:
    """What an evaluation measures: a version, or the bare base if `version_id` is None."""

    base_model: str
    base_revision: str
    version_id: uuid.UUID | None = None
    base_identity: dict[str, Any] | None = field(default=None, hash=False)
    """The same weights that read texts otherwise are another base, with scores of its own."""


def subject_of(adapter: Adapter, version: Version | None) -> EvaluatedSubject:
    version_id = version.id if version else None
    return EvaluatedSubject(adapter.base_model, adapter.base_revision, version_id, adapter.base_identity)


def find_evaluation(session: Session, subject: EvaluatedSubject, suite_id: uuid.UUID) -> Evaluation | None:
    return session.scalars(
        select(Evaluation).where(
            Evaluation.suite_id == suite_id,
            *_of(subject),
        )
    ).one_or_none()


def record_evaluation(
    session: Session,
    subject: EvaluatedSubject,
    suite_id: uuid.UUID,
    *,
    score: float,
    items: Sequence[dict[str, Any]],
    seconds: float,
) -> Evaluation:
    """Store a score; if another worker was faster, its row stays and is returned.

    A model can write what PostgreSQL's JSON can't hold, such as NUL characters: they are kept as U+FFFD.
    """
    session.execute(
        insert(Evaluation)
        .values(
            id=uuid.uuid4(),
            suite_id=suite_id,
            version_id=subject.version_id,
            base_model=subject.base_model,
            base_revision=subject.base_revision,
            base_identity=subject.base_identity,
            score=score,
            items=[{name: _storable(value) for name, value in item.items()} for item in items],
            seconds=seconds,
            created_at=utc_now(),
        )
        .on_conflict_do_nothing()
    )
    found = find_evaluation(session, subject, suite_id)
    if found is None:
        raise RuntimeError("an evaluation vanished inside its own transaction")
    return found


def _storable(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def judged_scores(evaluations: Sequence[Evaluation], places: Collection[int] | None = None) -> list[list[float]]:
    """By evaluation of one suite, the scores of the items that every one of them judged.

    An item may be left out for one subject only, whose memory leaves it no room: it says nothing about either then.

    Args:
        places: the items that are wanted; None for all.
    """
    kept = [
        [item["score"] for item in items]
        for place, items in enumerate(zip(*(evaluation.items for evaluation in evaluations), strict=True))
        if (places is None or place in places) and not any(item.get("left_out") for item in items)
    ]
    return [[scores[number] for scores in kept] for number in range(len(evaluations))]


def newest_scores(session: Session, subject: EvaluatedSubject, tasks: Sequence[Task]) -> dict[str, Evaluation]:
    """For each task, by name, the evaluation on the newest suite that the subject was evaluated on."""
    return scores_by_subject(session, [subject], tasks)[subject]


def scores_by_subject(
    session: Session, subjects: Collection[EvaluatedSubject], tasks: Sequence[Task], *, with_items: bool = True
) -> dict[EvaluatedSubject, dict[str, Evaluation]]:
    """`newest_scores` of several subjects, in one query. Items, with every answer, are long: of many versions they are
    better left where they are."""
    mine = [
        Evaluation.base_model.in_({subject.base_model for subject in subjects}),
        Evaluation.base_revision.in_({subject.base_revision for subject in subjects}),
        Evaluation.version_id.in_([subject.version_id for subject in subjects if subject.version_id])
        | (Evaluation.version_id.is_(None) if any(subject.version_id is None for subject in subjects) else false()),
    ]
    rows = session.scalars(
        select(Evaluation)
        .join(Suite, Suite.id == Evaluation.suite_id)
        .where(Suite.task_id.in_([task.id for task in tasks]), *mine)
        .options(
            joinedload(Evaluation.suite).joinedload(Suite.task),
            *(() if with_items else (defer(Evaluation.items, raiseload=True),)),
        )
        .order_by(Suite.number)
    )
    found: dict[EvaluatedSubject, dict[str, Evaluation]] = {subject: {} for subject in subjects}
    for row in rows:
        subject = EvaluatedSubject(row.base_model, row.base_revision, row.version_id, row.base_identity)
        if subject in found:
            found[subject][row.suite.task.name] = row
    return found


@dataclass(frozen=True)
class ItemCounts:
    items: int
    left_out: int
    """How many of them could not be judged and do not count."""


def count_items(session: Session, evaluations: Collection[Evaluation]) -> dict[uuid.UUID, ItemCounts]:
    """The counts of each evaluation, by its id; counted where the items are."""
    left_out = func.jsonb_path_query_array(Evaluation.items, text("'$[*] ? (@.left_out == true)'::jsonpath"))
    counts = func.jsonb_array_length(Evaluation.items), func.jsonb_array_length(left_out)
    wanted = one_of(Evaluation.id, [evaluation.id for evaluation in evaluations])
    return {id_: ItemCounts(*found) for id_, *found in session.execute(select(Evaluation.id, *counts).where(wanted))}


def _of(subject: EvaluatedSubject) -> list[ColumnElement[bool]]:
    return [
        Evaluation.base_model == subject.base_model,
        Evaluation.base_revision == subject.base_revision,
        Evaluation.base_identity.is_(None)
        if subject.base_identity is None
        else Evaluation.base_identity == subject.base_identity,
        Evaluation.version_id.is_(None) if subject.version_id is None else Evaluation.version_id == subject.version_id,
    ]
