"""Deleting data: a trajectory, or all of a session or a user, wherever it was copied to.

One transaction removes the rows and their texts, applies the policy to the versions that learned from them, and keeps a
record: who, when, why, hashes, what was affected. Bytes in the object store follow (`registry.deletion.erasure`), in as
many passes as it takes. Suites, datasets, evaluations and feedback keep their hashes, counts and scores; the trigger
that makes them immutable lets a transaction that says `memgen.erasing` blank their texts, and nothing else.

Policies for versions that were trained on the data, and for all that go on from those:
`keep` leaves them as they are; their lineage says that they learned deleted data.
`retrain` trains the serving ones anew without it (`registry.deletion.retraining`); the old ones serve until then.
`withdraw` refuses them for ever; their aliases go to the newest unaffected version that passed, their routes end.
Versions that are cued from past experience hold it word for word: only `withdraw` is allowed for them; it removes it.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, defer

from registry import jobs
from registry.database import one_of
from registry.deletion.answers import forget_answers
from registry.deletion.erasure import blank_missing_answers
from registry.deletion.retraining import plan_retrainings, start_retrainings, stop_chain, stop_superseded
from registry.deletion.scope import Affected, DeletionSubject, find_affected, lock_subject
from registry.errors import DeletionChanged, DeletionNotFound, PolicyKeepsWords
from registry.gates.verdict import gate_of, verdict
from registry.job_requests import AnyTraining, TrainTrigger
from registry.judging.judgements import forget
from registry.models import (
    Adapter,
    Deletion,
    DeletionDataset,
    Erasure,
    Job,
    Trajectory,
    Version,
)
from registry.recordings.joining import lock_recording
from registry.recordings.runs import forget_runs
from registry.serving.aliases import history, list_aliases, promote, roll_back
from registry.serving.routes import end_live_route, live_route
from registry.serving.stored_responses import forget_responses
from registry.trajectories.records import lock_trajectories
from registry.versions.ancestry import ancestors_and_self
from registry.versions.lineage import loaded_versions
from registry.versions.records import get_version, list_versions, version_of_job
from registry.versions.state import why_not_parent, why_not_servable, withdraw
from registry.wording import counted

DeletionPolicy = Literal["keep", "retrain", "withdraw"]


@dataclass(frozen=True)
class Deleted:
    deletion: Deletion
    started: tuple[uuid.UUID, ...]
    """Jobs to enqueue after the commit."""


def delete_data(
    session: Session,
    project_id: uuid.UUID,
    subject: DeletionSubject,
    policy: DeletionPolicy,
    *,
    actor: str,
    reason: str,
    expected: int | None = None,
) -> Deleted:
    """Delete the subject's rows and texts, and apply the policy to the versions that learned from them.

    Args:
        expected: number of trajectories that the dry run showed; None skips the check.

    Raises:
        Invalid, TrajectoryNotFound: as `find_affected`.
        PolicyKeepsWords: as `check_policy`.
        DeletionChanged: another number of trajectories would go than `expected`.
    """
    # Until the commit, no data of the subject may arrive, and no alias may move to an affected version.
    lock_trajectories(session, project_id)
    lock_recording(session, project_id, shared=False)
    _lock_adapters(session, project_id)
    lock_subject(session, project_id, subject)
    affected = find_affected(session, project_id, subject)
    if expected is not None and expected != len(affected.trajectories):
        raise DeletionChanged(
            f"{counted(len(affected.trajectories), 'trajectory')} would be deleted, not {expected} as in the dry "
            "run; look again"
        )
    check_policy(affected, policy)
    described, learned = affected.describe(session), _learned(session, affected, policy)
    watched = _live_jobs(session, project_id)
    ids = [id_ for id_, _ in affected.trajectories]
    forget_answers(session, project_id, sessions=affected.sessions, user=subject.user, trajectory_ids=ids)
    forget_runs(session, project_id, ids, affected.sessions, subject.user)
    forget(session, ids)
    session.execute(delete(Trajectory).where(one_of(Trajectory.id, ids)))
    blank_missing_answers(session, project_id)
    forget_responses(session, project_id, affected.sessions, subject.user)
    deletion = Deletion(id=uuid.uuid4(), project_id=project_id, scope=subject.scope, subject_hash=subject.digest)
    evidence = {"deletion": str(deletion.id)}
    if policy == "withdraw":
        described |= _withdraw(session, learned, evidence, actor=actor, reason=reason)
    if policy == "retrain":
        stop_superseded(session, deletion, learned)
    restarted = {job.id: new for job in affected.jobs if (new := _restart(session, job, affected, policy)) is not None}
    deletion.policy, deletion.actor, deletion.reason = policy, actor, reason
    deletion.trajectories = [{"id": str(id_), "content_hash": content} for id_, content in affected.trajectories]
    plan = plan_retrainings(session, learned if policy == "retrain" else (), restarted)
    deletion.affected = described | {
        "restarted": {str(old): str(new) for old, new in restarted.items()},
        "retrained_by": [str(other) for other in plan.covered_by],
    }
    session.add(deletion)
    session.flush()
    _plan_erasure(session, deletion, affected, watched)
    retrained = start_retrainings(session, deletion, plan)
    return Deleted(deletion, (*restarted.values(), *retrained))


def check_policy(affected: Affected, policy: DeletionPolicy) -> None:
    """Raise PolicyKeepsWords if the policy would leave the data in the experience of a version."""
    if policy == "withdraw" or not affected.with_experience:
        return
    named = ", ".join(f"{version.adapter.name}@{version.number}" for version in affected.with_experience[:5])
    more = f" and {len(affected.with_experience) - 5} more" if len(affected.with_experience) > 5 else ""
    raise PolicyKeepsWords(
        f"{named}{more}: versions of an adapter with cue_tokens hold past trajectories word for word, and policy "
        f"{policy!r} would leave the data there; use policy 'withdraw', and train anew"
    )


def list_deletions(session: Session, project_id: uuid.UUID, *, before: int | None, limit: int) -> list[Deletion]:
    """Newest first; `before` is the `seq` of the last one already seen."""
    query = select(Deletion).where(Deletion.project_id == project_id)
    if before is not None:
        query = query.where(Deletion.seq < before)
    return list(session.scalars(query.order_by(Deletion.seq.desc()).limit(limit)))


def list_brief(
    session: Session, project_id: uuid.UUID, *, before: int | None, limit: int
) -> list[tuple[Deletion, int]]:
    """As `list_deletions`, each with its number of trajectories, and without what was affected, which may be long."""
    query = select(Deletion, func.jsonb_array_length(Deletion.trajectories)).where(Deletion.project_id == project_id)
    if before is not None:
        query = query.where(Deletion.seq < before)
    long = (Deletion.affected, Deletion.trajectories)
    query = query.options(*(defer(column, raiseload=True) for column in long))
    return [(row, count) for row, count in session.execute(query.order_by(Deletion.seq.desc()).limit(limit))]


def get_deletion(session: Session, project_id: uuid.UUID, deletion_id: uuid.UUID) -> Deletion:
    """Raises DeletionNotFound."""
    query = select(Deletion).where(Deletion.id == deletion_id, Deletion.project_id == project_id)
    found = session.scalars(query).one_or_none()
    if found is None:
        raise DeletionNotFound(f"no deletion {deletion_id} in this project; `memgen deletions` lists them")
    return found


def _learned(session: Session, affected: Affected, policy: DeletionPolicy) -> list[Version]:
    """The versions to which the policy does something."""
    return loaded_versions(session, affected.versions) if policy != "keep" else []


def _lock_adapters(session: Session, project_id: uuid.UUID) -> None:
    query = select(Adapter.id).where(Adapter.project_id == project_id).order_by(Adapter.id).with_for_update()
    session.scalars(query).all()


def _live_jobs(session: Session, project_id: uuid.UUID) -> list[uuid.UUID]:
    """Jobs that may read some of the data before this transaction's end, and write copies of it after.

    Queued ones are among them: a worker may begin them meanwhile. No new job can come: it waits for its adapter's lock.
    """
    return list(session.scalars(select(Job.id).where(Job.project_id == project_id, Job.state.in_(jobs.LIVE))))


def _withdraw(
    session: Session, affected: Sequence[Version], evidence: dict[str, Any], *, actor: str, reason: str
) -> dict[str, Any]:
    """Withdraw the versions and move their aliases away.

    Returns what changed: `{"moved": [...], "stranded": [...], "ended_routes": [...]}`; `stranded` are aliases for which
    no unaffected version is left.
    """
    affected_ids = {version.id for version in affected}
    for version in affected:
        withdraw(session, version, actor=actor, reason=reason, evidence=evidence)
    changed: dict[str, list[Any]] = {"moved": [], "stranded": [], "ended_routes": []}
    for adapter in {version.adapter_id: version.adapter for version in affected}.values():
        route = live_route(session, adapter)
        if route is not None and any(arm.version_id in affected_ids for arm in route.arms):
            end_live_route(session, adapter, actor=actor, reason=reason, evidence=evidence)
            changed["ended_routes"].append(f"{adapter.name}: route {route.number}")
        fallback = _newest_good(session, adapter, affected_ids)
        for alias in list_aliases(session, adapter):
            if alias.version_id not in affected_ids:
                continue
            name = f"{adapter.name}@{alias.name}"
            if fallback is None:
                changed["stranded"].append(name)
                continue
            changed["moved"].append({"alias": name, "from": alias.version.number, "to": fallback.number})
            _move(session, adapter, alias.name, fallback, actor=actor, reason=f"trained on deleted data: {reason}")
    return changed


def _newest_good(session: Session, adapter: Adapter, affected_ids: set[uuid.UUID]) -> Version | None:
    for version in reversed(list_versions(session, adapter)):
        if version.id in affected_ids or verdict(gate_of(session, version)) != "passed":
            continue
        if why_not_servable(session, version) is None:
            return version
    return None


def _move(session: Session, adapter: Adapter, alias: str, target: Version, *, actor: str, reason: str) -> None:
    if any(move.to_version_id == target.id for move in history(session, adapter, alias)):
        roll_back(session, adapter, alias, actor=actor, reason=reason, to_number=target.number)
    else:
        promote(session, adapter, alias, target, actor=actor, reason=reason)


def _restart(session: Session, job: Job, affected: Affected, policy: DeletionPolicy) -> uuid.UUID | None:
    """Cancel a training on the data and queue the same one without it, whatever the policy: it has served nobody.

    None if there is nothing to begin anew: its work is done, it is to stop already, it will not read the data, or it
    may not go on from its parent.
    """
    if _is_done_or_stopping(session, job):
        return None
    before = request = jobs.training_of(job)
    if request is not None and policy != "keep" and job.adapter_id is not None:
        request = request.changed(parent=_unaffected(session, affected, job.adapter_id, request.parent))
    if request is not None and request == before and job.dataset_id not in {each.id for each in affected.datasets}:
        return None  # it has not chosen its data yet, and goes on from the same version as it would anew
    jobs.request_cancel(session, job.project_id, job.id)
    refusal = _refusal(session, job, request)
    if request is None or refusal is not None:
        jobs.add_event(session, job.id, "warning", f"its data was deleted; it does not begin anew: {refusal}")
        stop_chain(session, job, str(refusal))
        return None
    replacement = jobs.replace_job(session, job, request)
    jobs.add_event(session, job.id, "warning", f"its data was deleted; job {replacement.id} begins anew without it")
    jobs.add_event(session, replacement.id, "info", f"replaces job {job.id}, whose data was deleted")
    return replacement.id


def _is_done_or_stopping(session: Session, job: Job) -> bool:
    """Whether a job needs no other in its place: it has ended, was cancelled, by a person or by a deletion that has
    put another in its place, or has made a version that is judged, with which the policy deals."""
    job = jobs.lock_job(session, job.project_id, job.id)
    if job.state not in jobs.LIVE or job.cancel_requested:
        return True
    version = version_of_job(session, job.id)
    return version is not None and gate_of(session, version) is not None


def _refusal(session: Session, job: Job, request: AnyTraining | None) -> str | None:
    """Why the training can't go on from its parent, or from nothing."""
    if request is None:
        return "this release can't read what it was to train"
    if job.adapter is None or not request.parent:
        return "no version is left whose trigger it could train" if isinstance(request, TrainTrigger) else None
    return why_not_parent(session, get_version(session, job.adapter, request.parent))


def _unaffected(session: Session, affected: Affected, adapter_id: uuid.UUID, number: int | None) -> int | None:
    """The version itself, or its nearest ancestor that did not learn the data; None for the bare base."""
    learned_it = {version.number: version.id for version in affected.versions if version.adapter_id == adapter_id}
    if number not in learned_it:
        return number
    chain = ancestors_and_self(session, session.get_one(Version, learned_it[number]))
    clean = [ancestor for ancestor in chain if ancestor.number not in learned_it]
    return clean[-1].number if clean else None


def _plan_erasure(session: Session, deletion: Deletion, affected: Affected, watched: list[uuid.UUID]) -> None:
    dataset_ids = [dataset.id for dataset in affected.datasets]
    session.add_all(
        DeletionDataset(deletion_id=deletion.id, dataset_id=dataset.id, items=dataset.items)
        for dataset in affected.datasets
    )
    readers = session.scalars(select(Job.id).where(one_of(Job.dataset_id, dataset_ids)).order_by(Job.seq)).all()
    session.add(
        Erasure(
            deletion_id=deletion.id,
            datasets=[dataset.object_key for dataset in affected.datasets],
            objects=[f"jobs/{job_id}/checkpoint.safetensors" for job_id in readers],
            job_ids=[str(job_id) for job_id in {*watched, *(job.id for job in affected.jobs)}],
        )
    )
    session.flush()
