"""The scope of a deletion: its subject, and all that holds or learned from it. Reads only; a dry run shows the same."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Text, func, literal_column, or_, select
from sqlalchemy.orm import Session

from registry.database import one_of
from registry.deletion.answers import count_answers
from registry.errors import Invalid, TrajectoryNotFound
from registry.job_requests import TRAININGS
from registry.jobs import LIVE, versions_needed
from registry.json_text import is_storable, show
from registry.models import (
    Dataset,
    DatasetItem,
    Job,
    Suite,
    SuiteItem,
    Task,
    Trajectory,
)
from registry.models.trajectories import USER
from registry.recordings.erased import subject_digest
from registry.recordings.runs import count_unwritten
from registry.serving.stored_responses import count_responses
from registry.versions.lineage import TouchedVersion, serving_ids, serving_of, versions_touched

DeletionScope = Literal["trajectory", "session", "user"]


@dataclass(frozen=True)
class DeletionSubject:
    """One trajectory by the service's id, all of a session by its id, or all of a user: `metadata.user`."""

    scope: DeletionScope
    identifier: str

    @property
    def user(self) -> str | None:
        return self.identifier if self.scope == "user" else None

    @property
    def digest(self) -> str:
        """Hash that the record keeps instead of the identifier. 64 hex digits."""
        return subject_digest(self.scope, self.identifier)


@dataclass(frozen=True)
class AffectedDataset:
    """A dataset that holds some of the data."""

    id: uuid.UUID
    content_hash: str
    object_key: str
    task: str
    items: int
    """Number of its places that hold the data."""


@dataclass(frozen=True)
class Affected:
    """Everything that holds the data or learned from it."""

    trajectories: tuple[tuple[uuid.UUID, str], ...]
    """(id, content hash)"""
    sessions: tuple[str, ...]
    """Sessions whose answers lose the session's id, and whose feedback loses its comments."""
    answers: int
    responses: int
    """Stored responses of the sessions and of the user."""
    feedback: int
    """Feedback on whole sessions, which loses the session's id and its comment."""
    runs: int
    """Recorded runs of theirs that are no trajectories."""
    suites: tuple[tuple[str, int, int], ...]
    """(task, number, items)"""
    datasets: tuple[AffectedDataset, ...]
    jobs: tuple[Job, ...]
    """Live jobs that read one of the datasets, or go on from a version that did; not those that are to stop already."""
    versions: tuple[TouchedVersion, ...]
    """By adapter and number."""

    @property
    def with_experience(self) -> tuple[TouchedVersion, ...]:
        """Versions whose artifact holds their training data as text, to be cued from it."""
        return tuple(version for version in self.versions if version.adapter.memory.get("cue_tokens"))

    def describe(self, session: Session, *, most: int | None = None) -> dict[str, Any]:
        """JSON of all this, without any of the data.

        Args:
            most: entries of each list; None is all. `counts` says how many there are. Of more versions those that serve
                are listed, and the newest.
        """
        shown = self._shown(session, most)
        serving = serving_of(session, [version.id for version in shown])
        return {
            "trajectories": len(self.trajectories),
            "answers": self.answers,
            "responses": self.responses,
            "feedback": self.feedback,
            "runs": self.runs,
            "counts": {name: len(getattr(self, name)) for name in ("suites", "datasets", "jobs", "versions")},
            "suites": [{"task": task, "number": number, "items": items} for task, number, items in self.suites[:most]],
            "datasets": [
                {"hash": dataset.content_hash, "task": dataset.task, "items": dataset.items}
                for dataset in self.datasets[:most]
            ],
            "jobs": [str(job.id) for job in self.jobs[:most]],
            "versions": [
                {
                    "adapter": version.adapter.name,
                    "number": version.number,
                    "aliases": list(serving[version.id].aliases),
                    "routes": list(serving[version.id].routes),
                    "exposures": serving[version.id].exposures,
                }
                for version in shown
            ],
        }

    def _shown(self, session: Session, most: int | None) -> Sequence[TouchedVersion]:
        if most is None or len(self.versions) <= most:
            return self.versions
        serve = serving_ids(session, self.versions[0].adapter.project_id)
        first = sorted(self.versions, key=lambda version: (version.id not in serve, -version.number))[:most]
        return sorted(first, key=lambda version: (version.adapter.name, version.number))


def find_affected(session: Session, project_id: uuid.UUID, subject: DeletionSubject) -> Affected:
    """Raises Invalid, or TrajectoryNotFound: nothing of the subject is stored."""
    rows = session.execute(
        select(Trajectory.id, Trajectory.content_hash, Trajectory.session_id)
        .where(Trajectory.project_id == project_id, _matches(subject))
        .order_by(Trajectory.seq)
    ).all()
    ids = [row.id for row in rows]
    sessions = _sessions(subject, [row.session_id for row in rows])
    answers, feedback = count_answers(session, project_id, sessions)
    responses = count_responses(session, project_id, sessions, subject.user)
    runs = count_unwritten(session, project_id, sessions, subject.user)
    if not rows and not answers and not responses and not feedback and not runs:
        raise TrajectoryNotFound(f"nothing of {subject.scope} {show(subject.identifier)} is stored in this project")
    datasets = _datasets(session, ids)
    dataset_ids = [dataset.id for dataset in datasets]
    versions = versions_touched(session, dataset_ids)
    return Affected(
        trajectories=tuple((row.id, row.content_hash) for row in rows),
        sessions=sessions,
        answers=answers,
        responses=responses,
        feedback=feedback,
        runs=runs,
        suites=_suites(session, ids),
        datasets=datasets,
        jobs=_live_jobs(session, project_id, dataset_ids, versions),
        versions=tuple(versions),
    )


def lock_subject(session: Session, project_id: uuid.UUID, subject: DeletionSubject) -> None:
    """Lock the subject's trajectories, so that none enters a dataset or suite before this transaction ends."""
    rows = select(Trajectory.id).where(Trajectory.project_id == project_id, _matches(subject))
    session.scalars(rows.order_by(Trajectory.id).with_for_update()).all()


def _matches(subject: DeletionSubject) -> Any:
    """Raises Invalid."""
    if not is_storable(subject.identifier) or not subject.identifier:
        raise Invalid(f"{subject.scope} {show(subject.identifier)}; expected an id without NUL")
    if subject.scope == "session":
        return Trajectory.session_id == subject.identifier
    if subject.scope == "user":
        return literal_column(USER, Text) == subject.identifier
    try:
        return Trajectory.id == uuid.UUID(subject.identifier)
    except ValueError as error:
        raise Invalid(
            f"trajectory {show(subject.identifier)}; expected the id that the service gave it, a UUID"
        ) from error


def _sessions(subject: DeletionSubject, found: list[str | None]) -> tuple[str, ...]:
    """A user's requests go by the sessions of the user's trajectories, and by the user where they named none."""
    if subject.scope == "trajectory":
        return ()
    if subject.scope == "session":
        return (subject.identifier,)
    return tuple(sorted({subject.identifier, *(session_id for session_id in found if session_id is not None)}))


def _datasets(session: Session, trajectory_ids: list[uuid.UUID]) -> tuple[AffectedDataset, ...]:
    """Oldest first."""
    rows = session.execute(
        select(Dataset.id, Dataset.content_hash, Dataset.object_key, Task.name, func.count())
        .select_from(DatasetItem)
        .join(Dataset, Dataset.id == DatasetItem.dataset_id)
        .join(Task, Task.id == Dataset.task_id)
        .where(one_of(DatasetItem.trajectory_id, trajectory_ids))
        .group_by(Dataset.id, Task.id)
        .order_by(Dataset.created_at, Dataset.id)
    )
    return tuple(AffectedDataset(*row) for row in rows)


def _suites(session: Session, trajectory_ids: list[uuid.UUID]) -> tuple[tuple[str, int, int], ...]:
    rows = session.execute(
        select(Task.name, Suite.number, func.count())
        .select_from(SuiteItem)
        .join(Suite, Suite.id == SuiteItem.suite_id)
        .join(Task, Task.id == Suite.task_id)
        .where(one_of(SuiteItem.trajectory_id, trajectory_ids))
        .group_by(Task.name, Suite.number)
        .order_by(Task.name, Suite.number)
    )
    return tuple((task, number, items) for task, number, items in rows)


def _live_jobs(
    session: Session, project_id: uuid.UUID, dataset_ids: list[uuid.UUID], versions: list[TouchedVersion]
) -> tuple[Job, ...]:
    """Trainings under way on the data, or from a version that learned it, but for those that are to stop already."""
    numbers: dict[uuid.UUID, set[int]] = {}
    for version in versions:
        numbers.setdefault(version.adapter_id, set()).add(version.number)
    live = session.scalars(
        select(Job)
        .where(
            Job.project_id == project_id,
            Job.state.in_(LIVE),
            Job.cancel_requested.is_(False),
            Job.kind.in_(TRAININGS),
            or_(one_of(Job.dataset_id, dataset_ids), Job.adapter_id.in_(numbers)),
        )
        .order_by(Job.seq)
    )
    reading = set(dataset_ids)
    return tuple(
        job
        for job in live
        if job.dataset_id in reading
        or (job.adapter_id is not None and not numbers.get(job.adapter_id, set()).isdisjoint(versions_needed(job)))
    )
