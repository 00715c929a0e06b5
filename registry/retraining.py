"""Training versions anew without deleted data: a line of ordinary jobs, one for each version that has to be redone.

A line goes from the nearest ancestor that did not learn the data up to a version that serves; each step learns what
the version in its place learned, with that version's own settings, and goes on from the step before. The lineage of
what comes out names the version that it replaces. The gate judges it like any other.
"""

import uuid
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry import jobs
from registry.lineage import serving_of
from registry.models import Adapter, Deletion, Job, JsonObject, Retraining, Version
from registry.versions import lineage, version_of_job


def start_retrainings(session: Session, deletion: Deletion, affected: Sequence[Version]) -> list[uuid.UUID]:
    """Plan the lines and create the first job of each. Jobs to enqueue after the commit."""
    touched = {version.id for version in affected}
    started = []
    for number, chain in enumerate(_lines(session, affected, touched)):
        clean = [ancestor for ancestor in lineage(chain[0]) if ancestor.id not in touched]
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
        started.append(_start(session, steps[0], clean[-1] if clean else None))
    return started


def advance_retrainings(session: Session) -> list[uuid.UUID]:
    """Create the jobs of steps whose predecessor is done; end lines whose predecessor failed. Jobs to enqueue."""
    waiting = session.scalars(
        select(Retraining)
        .where(Retraining.job_id.is_(None), Retraining.stopped.is_(None))
        .order_by(Retraining.deletion_id, Retraining.line, Retraining.place)
        .with_for_update(skip_locked=True)
    ).all()
    started = []
    for step in waiting:
        before = session.get_one(Retraining, (step.deletion_id, step.line, step.place - 1))
        if before.stopped is not None:
            step.stopped = before.stopped
        elif before.job is None or before.job.state in jobs.LIVE:
            continue
        elif (parent := version_of_job(session, before.job.id)) is None or before.job.state != "succeeded":
            step.stopped = f"job {before.job.id} {before.job.state}: {before.job.error or 'no version came of it'}"
        else:
            started.append(_start(session, step, parent))
    session.flush()
    return started


def _lines(session: Session, affected: Sequence[Version], touched: set[uuid.UUID]) -> list[list[Version]]:
    """Affected ancestors, in order, of each version that serves; of an adapter that serves none, of its newest."""
    serving = serving_of(session, touched)
    ends = [version for version in affected if serving[version.id].aliases or serving[version.id].routes]
    covered = {version.adapter_id for version in ends}
    newest = {version.adapter_id: version for version in affected if version.adapter_id not in covered}
    chains = [[each for each in lineage(end) if each.id in touched] for end in (*ends, *newest.values())]
    return [
        chain
        for chain in chains
        if not any(len(chain) < len(other) and other[: len(chain)] == chain for other in chains)
    ]


def _params(session: Session, version: Version) -> JsonObject:
    """What the version's own job was asked. `champion` moves only for a version that had it."""
    original = session.get_one(Job, version.job_id).params
    served = "champion" in serving_of(session, [version.id])[version.id].aliases
    kept = {key: value for key, value in original.items() if key not in ("parent", "promote")}
    return {**kept, "task": version.dataset.task.name, "promote": served, "replaces": version.number}


def _start(session: Session, step: Retraining, parent: Version | None) -> uuid.UUID:
    params = {**step.params, "parent": parent.number if parent else None}
    adapter = session.get_one(Adapter, step.adapter_id)
    replaced = session.get_one(Version, step.replaces_id)
    of_trigger = session.get_one(Job, replaced.job_id).kind == "train_trigger"
    kind = "train_trigger" if of_trigger else "train_weaver"
    job = jobs.create_job(session, adapter.project_id, kind, params, adapter)
    step.job_id = job.id
    text = f"trains {adapter.name}@{replaced.number} anew without deleted data"
    jobs.add_event(session, job.id, "info", text, {"deletion": str(step.deletion_id), "replaces": replaced.number})
    session.flush()
    return job.id
