"""Training versions anew without deleted data: a chain of ordinary jobs, one step for each version to be replaced.

A chain goes from the nearest ancestor that did not learn the data up to a version that serves. Each step learns what
the version that it replaces learned, with that version's own settings, and goes on from the version of the step
before. The lineage of a new version names the version that it replaces. The gate judges it like any other; where it
forgot and a retry follows, the step is the retry's from then on (`registry.jobs.replace_job`).

Several deletions in a row do not train the same version anew several times: a chain that has not chosen its data yet,
or begins anew itself, is the later deletion's too. One that has gone on from the data is stopped for a new one.

A chain stops, and records why, when one of its jobs does not succeed, or when the version that the next step would go
on from was withdrawn or purged in the meantime.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session, joinedload

from registry import jobs
from registry.database import one_of
from registry.job_requests import AnyTraining, JobKind, TrainTrigger, TrainWeaver
from registry.models import Adapter, Deletion, Job, JsonObject, Retraining, Version
from registry.names import CHAMPION
from registry.versions.ancestry import ancestors_and_self
from registry.versions.lineage import serving_of
from registry.versions.records import form_of, version_of_job
from registry.versions.state import why_not_parent

Chain = tuple[uuid.UUID, int]
"""(deletion, number of the chain)"""


@dataclass(frozen=True)
class RetrainingPlan:
    affected_ids: frozenset[uuid.UUID]
    chains: tuple[tuple[Version, ...], ...]
    """The versions that each chain replaces, in order."""
    covered_by: tuple[uuid.UUID, ...] = ()
    """Deletions whose chains, still under way, replace the others without the data of this deletion too."""


def plan_retrainings(
    session: Session, affected: Sequence[Version], begun_anew: Collection[uuid.UUID]
) -> RetrainingPlan:
    """The chains that are needed. Versions of the jobs `begun_anew`, which nothing has judged yet, need none."""
    affected_ids = frozenset(version.id for version in affected)
    under_way = [steps for steps in _under_way(session, affected) if _serves(session, steps, affected_ids)]
    chains, covered_by = [], []
    left = [version for version in affected if version.job_id not in begun_anew]
    for versions in _chains(session, left, affected_ids):
        wanted = [version.id for version in versions]
        same = [steps for steps in under_way if [step.replaces_id for step in steps][-len(wanted) :] == wanted]
        if same:
            covered_by.append(same[0][0].deletion_id)
        else:
            chains.append(tuple(versions))
    return RetrainingPlan(affected_ids, tuple(chains), tuple(dict.fromkeys(covered_by)))


def start_retrainings(session: Session, deletion: Deletion, plan: RetrainingPlan) -> list[uuid.UUID]:
    """Create the steps of the chains, and the first job of each. Returns the jobs to enqueue after the commit."""
    started = []
    for chain, versions in enumerate(plan.chains):
        whole = ancestors_and_self(session, versions[0])
        clean = [ancestor for ancestor in whole if ancestor.id not in plan.affected_ids]
        steps = [
            Retraining(
                deletion_id=deletion.id,
                chain=chain,
                step=step,
                adapter_id=version.adapter_id,
                task_id=version.dataset.task_id,
                replaces_id=version.id,
                parent_id=clean[-1].id if step == 0 and clean else None,
                params=_params(session, version),
            )
            for step, version in enumerate(versions)
        ]
        session.add_all(steps)
        session.flush()
        started += _start(session, steps[0], clean[-1] if clean else None)
    return started


def stop_superseded(session: Session, deletion: Deletion, affected: Sequence[Version]) -> None:
    """Stop the chains under way that have learned what is deleted now, so that others begin in their place."""
    affected_ids = {version.id for version in affected}
    for steps in _under_way(session, affected):
        if _serves(session, steps, affected_ids):
            continue
        why = f"deletion {deletion.id} trains the same versions anew, without its data too"
        for step in steps:
            if step.job is None:
                step.stopped = why
            elif step.job.state in jobs.LIVE and not step.job.cancel_requested:
                jobs.request_cancel(session, step.job.project_id, step.job.id)
                jobs.add_event(session, step.job.id, "warning", why)
                step.stopped = why
    session.flush()


def _under_way(session: Session, affected: Sequence[Version]) -> list[list[Retraining]]:
    """The steps of each chain that is not done, and ends with one of the versions."""
    ids = [version.id for version in affected]
    named = select(Retraining.deletion_id, Retraining.chain).where(one_of(Retraining.replaces_id, ids)).distinct()
    found = []
    for deletion_id, chain in session.execute(named):
        mine = Retraining.deletion_id == deletion_id, Retraining.chain == chain
        query = select(Retraining).where(*mine).order_by(Retraining.step).execution_options(populate_existing=True)
        steps = list(session.scalars(query.options(joinedload(Retraining.job))))
        last = steps[-1]
        ended = last.stopped is not None or (last.job is not None and last.job.state not in jobs.LIVE)
        if last.replaces_id in ids and not ended and all(why_stopped(step) is None for step in steps):
            found.append(steps)
    return found


def _serves(session: Session, steps: Sequence[Retraining], affected_ids: Collection[uuid.UUID]) -> bool:
    """Whether a chain will end without the data, given that its live jobs begin anew where they must.

    It will not where a step has made a version of the data already, where its first ancestor learned it, or where
    somebody has cancelled its job.
    """
    if steps[0].parent_id in affected_ids:
        return False
    for step in steps:
        if step.job is None:
            continue
        made = version_of_job(session, step.job.id)
        if step.job.cancel_requested or (made is not None and made.id in affected_ids):
            return False
    return True


def chains_to_advance(session: Session) -> list[Chain]:
    """Chains with steps that wait for the one before."""
    waiting = select(Retraining.deletion_id, Retraining.chain).where(*_waits()).distinct()
    rows = session.execute(waiting.order_by(Retraining.deletion_id, Retraining.chain))
    return [(deletion_id, chain) for deletion_id, chain in rows]


def advance_chain(session: Session, chain: Chain) -> list[uuid.UUID]:
    """Create the job of the step whose predecessor is done, or stop the chain if that failed.

    Returns the jobs to enqueue after the commit.
    """
    mine = Retraining.deletion_id == chain[0], Retraining.chain == chain[1]
    # The adapter is locked first, as by a deletion or a gate, which may move a step to another job: they take turns.
    adapter = select(Adapter.id).where(Adapter.id.in_(select(Retraining.adapter_id).where(*mine)))
    session.scalars(adapter.order_by(Adapter.id).with_for_update()).all()
    waiting = select(Retraining).where(*mine, *_waits()).order_by(Retraining.step)
    started: list[uuid.UUID] = []
    for step in session.scalars(waiting.with_for_update()).all():
        before = session.get_one(Retraining, (*chain, step.step - 1))
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


def stop_chain(session: Session, job: Job, why: str) -> None:
    """Stop the chain at the step that `job` was to do, if it was to do one."""
    session.execute(update(Retraining).where(Retraining.job_id == job.id).values(stopped=why))


def list_retrainings(session: Session, deletion_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, list[Retraining]]:
    """The steps of each deletion, in order; every one of the ids has an entry."""
    query = select(Retraining).where(Retraining.deletion_id.in_(deletion_ids))
    query = query.options(*(joinedload(part) for part in (Retraining.adapter, Retraining.task)))
    query = query.options(*(joinedload(part) for part in (Retraining.replaces, Retraining.job)))
    found: dict[uuid.UUID, list[Retraining]] = {deletion_id: [] for deletion_id in deletion_ids}
    for row in session.scalars(query.order_by(Retraining.chain, Retraining.step)):
        found[row.deletion_id].append(row)
    return found


def step_state(step: Retraining) -> str:
    """`stopped`, `waiting` for the step before, or the state of its job."""
    if step.stopped is not None:
        return "stopped"
    return "waiting" if step.job is None else step.job.state


def why_stopped(step: Retraining) -> str | None:
    """Why the chain ended with this step or before it; None if it did not."""
    if step.stopped is not None or step.job is None or step.job.state not in ("failed", "cancelled"):
        return step.stopped
    return f"job {step.job.id} {step.job.state}" + (f": {step.job.error}" if step.job.error else "")


def _waits() -> tuple[ColumnElement[bool], ...]:
    return Retraining.job_id.is_(None), Retraining.stopped.is_(None)


def _chains(session: Session, affected: Sequence[Version], affected_ids: Collection[uuid.UUID]) -> list[list[Version]]:
    """Affected ancestors, in order, of each version that serves; of an adapter that serves none, of its newest."""
    serving = serving_of(session, affected_ids)
    ends = [version for version in affected if serving[version.id].aliases or serving[version.id].routes]
    covered = {version.adapter_id for version in ends}
    newest = {version.adapter_id: version for version in affected if version.adapter_id not in covered}
    chains = [
        [each for each in ancestors_and_self(session, end) if each.id in affected_ids]
        for end in (*ends, *newest.values())
    ]
    return [
        chain
        for chain in chains
        if not any(len(chain) < len(other) and other[: len(chain)] == chain for other in chains)
    ]


def _params(session: Session, version: Version) -> JsonObject:
    """The request of the version's own job. `champion` moves only for a version that had it."""
    task = version.dataset.task.name
    original = jobs.training_of(session.get_one(Job, version.job_id))
    if original is None:
        # Another installation or release trained the version: here it is trained by the defaults.
        adapter = session.get_one(Adapter, version.adapter_id)
        other = {} if version.form == form_of(adapter) else {"form": version.form}
        original = TrainWeaver.from_json({"task": task, **other})
    promote = CHAMPION in serving_of(session, [version.id])[version.id].aliases
    request = original.changed(task=task, promote=promote, replaces=version.number)
    return {key: value for key, value in request.to_json().items() if key != "parent"}  # known when the step begins


def _start(session: Session, step: Retraining, parent: Version | None) -> list[uuid.UUID]:
    """The step's job; none if nothing may go on from `parent`."""
    step.stopped = why_not_parent(session, parent)
    if step.stopped is not None:
        return []
    adapter = session.get_one(Adapter, step.adapter_id)
    replaced = session.get_one(Version, step.replaces_id)
    of_trigger = session.get_one(Job, replaced.job_id).kind == JobKind.TRAIN_TRIGGER
    request: AnyTraining = (TrainTrigger if of_trigger else TrainWeaver).from_json(step.params)
    request = request.changed(parent=parent.number if parent else None)
    job = jobs.create_job(session, adapter.project_id, request, adapter)
    step.job_id = job.id
    text = f"trains {adapter.name}@{replaced.number} anew without deleted data"
    jobs.add_event(session, job.id, "info", text, {"deletion": str(step.deletion_id), "replaces": replaced.number})
    session.flush()
    return [job.id]
