"""Training versions anew without deleted data: a line of ordinary jobs, one for each version that has to be redone.

A line goes from the nearest ancestor that did not learn the data up to a version that serves; each step learns what
the version in its place learned, with that version's own settings, and goes on from the step before. The lineage of
what comes out names the version that it replaces. The gate judges it like any other.

A line stops, and says why, when a job of it does not succeed, or when what came of the step before, or the ancestor
that it begins with, was withdrawn or purged meanwhile.
"""

import uuid
from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session, joinedload

from registry import jobs
from registry.job_params import JobKind, Training, TrainTrigger, TrainWeaver
from registry.models import Adapter, Deletion, Job, JsonObject, Retraining, Version
from registry.names import CHAMPION
from registry.versions.ancestry import lineage
from registry.versions.lineage import serving_of
from registry.versions.records import version_of_job
from registry.versions.state import why_not_parent

Line = tuple[uuid.UUID, int]
"""(deletion, number of the line)"""


def start_retrainings(session: Session, deletion: Deletion, affected: Sequence[Version]) -> list[uuid.UUID]:
    """Plan the lines and create the first job of each. Jobs to enqueue after the commit."""
    touched = {version.id for version in affected}
    started = []
    for number, chain in enumerate(_lines(session, affected, touched)):
        clean = [ancestor for ancestor in lineage(session, chain[0]) if ancestor.id not in touched]
        steps = [
            Retraining(
                deletion_id=deletion.id,
                line=number,
                place=place,
                adapter_id=version.adapter_id,
                task_id=version.dataset.task_id,
                replaces_id=version.id,
                parent_id=clean[-1].id if place == 0 and clean else None,
                params=_params(session, version),
            )
            for place, version in enumerate(chain)
        ]
        session.add_all(steps)
        session.flush()
        started += _start(session, steps[0], clean[-1] if clean else None)
    return started


def lines_to_advance(session: Session) -> list[Line]:
    """Lines with steps that wait for the one before."""
    waiting = select(Retraining.deletion_id, Retraining.line).where(*_waits()).distinct()
    rows = session.execute(waiting.order_by(Retraining.deletion_id, Retraining.line))
    return [(deletion_id, line) for deletion_id, line in rows]


def advance_line(session: Session, line: Line) -> list[uuid.UUID]:
    """Create the job of the step whose predecessor is done; end the line if that failed. Jobs to enqueue."""
    mine = Retraining.deletion_id == line[0], Retraining.line == line[1]
    # Taken first, as a deletion does, which may move a step to another job: the two take turns.
    adapter = select(Adapter.id).where(Adapter.id.in_(select(Retraining.adapter_id).where(*mine)))
    session.scalars(adapter.order_by(Adapter.id).with_for_update()).all()
    waiting = select(Retraining).where(*mine, *_waits()).order_by(Retraining.place)
    started: list[uuid.UUID] = []
    for step in session.scalars(waiting.with_for_update()).all():
        before = session.get_one(Retraining, (*line, step.place - 1))
        if before.stopped is not None:
            step.stopped = before.stopped
        elif before.job is None or before.job.state in jobs.LIVE:
            continue
        elif (parent := version_of_job(session, before.job.id)) is None or before.job.state != "succeeded":
            step.stopped = why_stopped(before) or f"no version came of job {before.job.id}"
        else:
            started += _start(session, step, parent)
    session.flush()
    return started


def stop_line(session: Session, job: Job, why: str) -> None:
    """The step that `job` was to do, if it was one, is not done, and none after it."""
    session.execute(update(Retraining).where(Retraining.job_id == job.id).values(stopped=why))


def list_retrainings(session: Session, deletion_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, list[Retraining]]:
    """By deletion, its steps in order; every one of the ids has an entry."""
    query = select(Retraining).where(Retraining.deletion_id.in_(deletion_ids))
    query = query.options(*(joinedload(part) for part in (Retraining.adapter, Retraining.task)))
    query = query.options(*(joinedload(part) for part in (Retraining.replaces, Retraining.job)))
    found: dict[uuid.UUID, list[Retraining]] = {deletion_id: [] for deletion_id in deletion_ids}
    for row in session.scalars(query.order_by(Retraining.line, Retraining.place)):
        found[row.deletion_id].append(row)
    return found


def step_state(step: Retraining) -> str:
    """`stopped`, `waiting` for the step before, or its job's."""
    if step.stopped is not None:
        return "stopped"
    return "waiting" if step.job is None else step.job.state


def why_stopped(step: Retraining) -> str | None:
    """None unless the line ended with this step, or before."""
    if step.stopped is not None or step.job is None or step.job.state not in ("failed", "cancelled"):
        return step.stopped
    return f"job {step.job.id} {step.job.state}" + (f": {step.job.error}" if step.job.error else "")


def _waits() -> tuple[ColumnElement[bool], ...]:
    return Retraining.job_id.is_(None), Retraining.stopped.is_(None)


def _lines(session: Session, affected: Sequence[Version], touched: set[uuid.UUID]) -> list[list[Version]]:
    """Affected ancestors, in order, of each version that serves; of an adapter that serves none, of its newest."""
    serving = serving_of(session, touched)
    ends = [version for version in affected if serving[version.id].aliases or serving[version.id].routes]
    covered = {version.adapter_id for version in ends}
    newest = {version.adapter_id: version for version in affected if version.adapter_id not in covered}
    chains = [[each for each in lineage(session, end) if each.id in touched] for end in (*ends, *newest.values())]
    return [
        chain
        for chain in chains
        if not any(len(chain) < len(other) and other[: len(chain)] == chain for other in chains)
    ]


def _params(session: Session, version: Version) -> JsonObject:
    """What the version's own job was asked. `champion` moves only for a version that had it."""
    task = version.dataset.task.name
    asked = jobs.request_of(session.get_one(Job, version.job_id))
    # What another installation trained is trained here by the defaults.
    original = asked if isinstance(asked, Training) else TrainWeaver.from_json({"task": task})
    served = CHAMPION in serving_of(session, [version.id])[version.id].aliases
    request = original.changed(task=task, promote=served, replaces=version.number)
    return {key: value for key, value in request.to_json().items() if key != "parent"}


def _start(session: Session, step: Retraining, parent: Version | None) -> list[uuid.UUID]:
    """The step's job; none if nothing may go on from `parent`."""
    step.stopped = why_not_parent(session, parent)
    if step.stopped is not None:
        return []
    adapter = session.get_one(Adapter, step.adapter_id)
    replaced = session.get_one(Version, step.replaces_id)
    of_trigger = session.get_one(Job, replaced.job_id).kind == JobKind.TRAIN_TRIGGER
    request: Training = (TrainTrigger if of_trigger else TrainWeaver).from_json(step.params)
    request = request.changed(parent=parent.number if parent else None)
    job = jobs.create_job(session, adapter.project_id, request, adapter)
    step.job_id = job.id
    text = f"trains {adapter.name}@{replaced.number} anew without deleted data"
    jobs.add_event(session, job.id, "info", text, {"deletion": str(step.deletion_id), "replaces": replaced.number})
    session.flush()
    return [job.id]
