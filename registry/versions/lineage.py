"""Lineage in both directions: what a version was made from, and what was made from a trajectory.

trajectory -> dataset -> job -> version -> alias, route, exposures
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import CTE, ColumnElement, Select, func, or_, select
from sqlalchemy.orm import Session, defer, joinedload

from registry.database import one_of
from registry.jobs import replaced_number
from registry.models import (
    Adapter,
    Alias,
    Dataset,
    DatasetItem,
    DeletionDataset,
    Exposure,
    Job,
    Route,
    RouteArm,
    Suite,
    SuiteItem,
    Trajectory,
    Version,
    VersionImport,
    VersionImportDataset,
)
from registry.versions.ancestry import ancestor_numbers


@dataclass(frozen=True)
class ServingSummary:
    """Aliases and routes through which a version serves now, and the number of its answers."""

    aliases: tuple[str, ...]
    routes: tuple[int, ...]
    """Numbers of live routes."""
    exposures: int
    """Number of answers that it has given, ever."""


@dataclass(frozen=True)
class VersionLineage:
    version: Version
    ancestors: tuple[int, ...]
    """Numbers of all ancestors, the first one first and the parent last."""
    children: tuple[Version, ...]
    job: Job
    trajectories: int
    """Number of trajectories of its dataset that are still stored."""
    replayed: int
    """Number of places of its dataset that replay earlier tasks."""
    deleted: int
    """Number of places of its dataset whose trajectory was deleted."""
    learned_deleted: bool
    """Whether it, or an ancestor, was trained on data that was deleted since."""
    replaces: Version | None
    """The version that it replaces, trained again without deleted data."""
    imported: VersionImport | None
    serving: ServingSummary


@dataclass(frozen=True)
class TrajectoryLineage:
    trajectory: Trajectory
    suites: tuple[Suite, ...]
    datasets: tuple[Dataset, ...]
    rewards: dict[uuid.UUID, float | None]
    """The reward that it had in each dataset, by dataset id; another one may be in effect now."""
    jobs: tuple[Job, ...]
    """Jobs that read one of the datasets."""
    versions: tuple[Version, ...]
    """Versions trained on one of the datasets, here or before they were imported, and their descendants: the trajectory
    has affected their weights."""
    serving: dict[uuid.UUID, ServingSummary]
    """Where each version serves, by version id."""


def version_lineage(session: Session, version: Version) -> VersionLineage:
    items = select(DatasetItem.replayed, func.count(func.distinct(DatasetItem.trajectory_id)), func.count())
    counts = {
        replayed: (distinct, places)
        for replayed, distinct, places in session.execute(
            items.where(DatasetItem.dataset_id == version.dataset_id).group_by(DatasetItem.replayed)
        )
    }
    deleted = session.scalar(
        select(func.coalesce(func.sum(DeletionDataset.items), 0)).where(
            DeletionDataset.dataset_id == version.dataset_id
        )
    )
    children = select(Version).where(Version.parent_id == version.id).order_by(Version.number)
    return VersionLineage(
        version=version,
        ancestors=ancestor_numbers(session, version),
        children=tuple(session.scalars(children)),
        job=session.get_one(Job, version.job_id),
        trajectories=sum(distinct for distinct, _ in counts.values()),
        replayed=counts.get(True, (0, 0))[1],
        deleted=int(deleted or 0),
        learned_deleted=version.id in learned_deleted(session, [version.adapter_id]),
        replaces=_replaced(session, version),
        imported=session.get(VersionImport, version.id),
        serving=serving_of(session, [version.id])[version.id],
    )


def _replaced(session: Session, version: Version) -> Version | None:
    """Read from the version's own job: where a retry went on after it, the step of the retraining is the retry's."""
    number = replaced_number(session.get_one(Job, version.job_id))
    query = select(Version).where(Version.adapter_id == version.adapter_id, Version.number == number)
    return session.scalars(query).one_or_none()


def trajectory_lineage(session: Session, trajectory: Trajectory) -> TrajectoryLineage:
    datasets = datasets_of(session, [trajectory.id])
    ids = [dataset.id for dataset in datasets]
    versions = versions_touched(session, ids)
    items = select(DatasetItem.dataset_id, DatasetItem.reward).where(DatasetItem.trajectory_id == trajectory.id)
    return TrajectoryLineage(
        trajectory=trajectory,
        suites=tuple(suites_of(session, trajectory)),
        datasets=tuple(datasets),
        rewards={row.dataset_id: row.reward for row in session.execute(items)},
        jobs=tuple(session.scalars(select(Job).where(Job.dataset_id.in_(ids)).order_by(Job.seq))),
        versions=tuple(versions),
        serving=serving_of(session, [version.id for version in versions]),
    )


def datasets_of(session: Session, trajectory_ids: Collection[uuid.UUID]) -> list[Dataset]:
    """Datasets that hold one of the trajectories, oldest first."""
    holding = select(DatasetItem.dataset_id).where(one_of(DatasetItem.trajectory_id, trajectory_ids))
    query = select(Dataset).where(Dataset.id.in_(holding)).options(joinedload(Dataset.task))
    return list(session.scalars(query.order_by(Dataset.created_at, Dataset.id)))


def versions_touched(session: Session, dataset_ids: Collection[uuid.UUID]) -> list[Version]:
    """Versions trained on one of the datasets, and all that go on from them, sorted by adapter and number.

    An imported version goes on from its ancestors at its origin as well. They may be as many as there are versions.
    """
    learned = _with_descendants(_trained_on(dataset_ids))
    query = select(Version).join(learned, learned.c.id == Version.id).join(Adapter, Adapter.id == Version.adapter_id)
    dataset = joinedload(Version.dataset).joinedload(Dataset.task)
    loaded = query.options(joinedload(Version.adapter), dataset, defer(Version.report))
    return list(session.scalars(loaded.order_by(Adapter.name, Version.number)))


@dataclass(frozen=True)
class TouchedVersions:
    """The versions that a trajectory has affected, for a person: those to look at, and how many there are."""

    shown: tuple[Version, ...]
    """All that serve now, and the newest that learned it themselves; by adapter and number."""
    direct: frozenset[uuid.UUID]
    """Which of them learned it themselves."""
    serving: dict[uuid.UUID, ServingSummary]
    count: int


def touched_by(session: Session, trajectory: Trajectory, *, most: int) -> TouchedVersions:
    """
    Args:
        most: versions that learned it themselves to show.
    """
    datasets = {dataset.id for dataset in datasets_of(session, [trajectory.id])}
    trained = _trained_on(datasets)
    every = set(session.scalars(select(_with_descendants(trained).c.id)))
    mine = Adapter.project_id == trajectory.project_id
    named = select(Alias.version_id).join(Adapter, Adapter.id == Alias.adapter_id).where(mine)
    routed = select(RouteArm.version_id).join(Route, Route.id == RouteArm.route_id)
    routed = routed.join(Adapter, Adapter.id == Route.adapter_id).where(mine, Route.state == "live")
    serving = every.intersection(session.scalars(named.union(routed)))
    newest = session.scalars(select(Version.id).where(trained).order_by(Version.created_at.desc()).limit(most))
    shown = session.scalars(
        select(Version)
        .join(Adapter, Adapter.id == Version.adapter_id)
        .where(one_of(Version.id, {*serving, *newest}))
        .options(joinedload(Version.adapter), defer(Version.report))
        .order_by(Adapter.name, Version.number)
    ).all()
    return TouchedVersions(
        shown=tuple(shown),
        direct=frozenset(version.id for version in shown if version.dataset_id in datasets),
        serving=serving_of(session, [version.id for version in shown]),
        count=len(every),
    )


def suites_of(session: Session, trajectory: Trajectory) -> list[Suite]:
    """Suites that have the trajectory among their items, oldest first."""
    holding = select(Suite).join(SuiteItem).where(SuiteItem.trajectory_id == trajectory.id)
    return list(session.scalars(holding.options(joinedload(Suite.task)).order_by(Suite.number)))


def learned_deleted(session: Session, adapter_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Versions of the adapters that were trained on data that was deleted since, or go on from one that was."""
    trained = _trained_on(select(DeletionDataset.dataset_id))
    return set(session.scalars(select(_with_descendants(Version.adapter_id.in_(adapter_ids), trained).c.id)))


def _with_descendants(*which: ColumnElement[bool]) -> CTE:
    """Ids of the versions of which this holds, and of all that go on from them."""
    found = select(Version.id).where(*which).cte("learned", recursive=True)
    return found.union(select(Version.id).join(found, Version.parent_id == found.c.id))


def _trained_on(dataset_ids: Collection[uuid.UUID] | Select[uuid.UUID]) -> ColumnElement[bool]:
    """Whether a version, or an ancestor of it at its origin, was trained on one of the datasets."""
    imported = select(VersionImportDataset.version_id).where(VersionImportDataset.dataset_id.in_(dataset_ids))
    return or_(Version.dataset_id.in_(dataset_ids), Version.id.in_(imported))


def serving_of(session: Session, version_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, ServingSummary]:
    """Where each version serves, by version id; every one of the ids has an entry."""
    aliases: dict[uuid.UUID, list[str]] = {}
    for alias in session.scalars(select(Alias).where(Alias.version_id.in_(version_ids)).order_by(Alias.name)):
        aliases.setdefault(alias.version_id, []).append(alias.name)
    routes: dict[uuid.UUID, list[int]] = {}
    live = (
        select(RouteArm.version_id, Route.number)
        .join(Route, Route.id == RouteArm.route_id)
        .where(RouteArm.version_id.in_(version_ids), Route.state == "live")
    )
    for version_id, number in session.execute(live.order_by(Route.number)):
        routes.setdefault(version_id, []).append(number)
    answers = select(Exposure.version_id, func.count()).where(Exposure.version_id.in_(version_ids))
    exposures = {row[0]: row[1] for row in session.execute(answers.group_by(Exposure.version_id))}
    return {
        version_id: ServingSummary(
            aliases=tuple(aliases.get(version_id, ())),
            routes=tuple(routes.get(version_id, ())),
            exposures=exposures.get(version_id, 0),
        )
        for version_id in version_ids
    }
