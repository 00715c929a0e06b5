"""Lineage in both directions: what a version was made from, and what was made from a trajectory.

trajectory -> dataset -> job -> version -> alias, route, exposures
"""

import uuid
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import CTE, ColumnElement, FromClause, Select, Subquery, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session, defer, joinedload

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
    children: tuple[int, ...]
    """Numbers of the versions that go on from it."""
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
class TouchedVersion:
    """A version that was trained on certain data, or goes on from one that was: of ten thousand, what is needed."""

    id: uuid.UUID
    number: int
    dataset_id: uuid.UUID
    adapter: Adapter

    @property
    def adapter_id(self) -> uuid.UUID:
        return self.adapter.id


@dataclass(frozen=True)
class TrajectoryLineage:
    trajectory: Trajectory
    suites: tuple[Suite, ...]
    datasets: tuple[Dataset, ...]
    rewards: dict[uuid.UUID, float | None]
    """The reward that it had in each dataset, by dataset id; another one may be in effect now."""
    jobs: tuple[uuid.UUID, ...]
    """Jobs that read one of the datasets."""
    versions: tuple[TouchedVersion, ...]
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
    children = select(Version.number).where(Version.parent_id == version.id).order_by(Version.number)
    return VersionLineage(
        version=version,
        ancestors=ancestor_numbers(session, version),
        children=tuple(session.scalars(children)),
        job=session.get_one(Job, version.job_id),
        trajectories=sum(distinct for distinct, _ in counts.values()),
        replayed=counts.get(True, (0, 0))[1],
        deleted=int(deleted or 0),
        learned_deleted=version.id in learned_deleted(session, [version]),
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
        jobs=tuple(session.scalars(select(Job.id).where(one_of(Job.dataset_id, ids)).order_by(Job.seq))),
        versions=tuple(versions),
        serving=serving_of(session, [version.id for version in versions]),
    )


def datasets_of(session: Session, trajectory_ids: Collection[uuid.UUID]) -> list[Dataset]:
    """Datasets that hold one of the trajectories, oldest first."""
    holding = select(DatasetItem.dataset_id).where(one_of(DatasetItem.trajectory_id, trajectory_ids))
    query = select(Dataset).where(Dataset.id.in_(holding)).options(joinedload(Dataset.task))
    return list(session.scalars(query.order_by(Dataset.created_at, Dataset.id)))


def versions_touched(session: Session, dataset_ids: Collection[uuid.UUID]) -> list[TouchedVersion]:
    """Versions trained on one of the datasets, and all that go on from them, sorted by adapter and number.

    An imported version goes on from its ancestors at its origin as well. They may be as many as there are versions.
    """
    learned = _with_descendants(_trained_on(dataset_ids))
    query = select(Version.id, Version.number, Version.dataset_id, Version.adapter_id)
    rows = session.execute(query.join(learned, learned.c.id == Version.id)).all()
    known = session.scalars(select(Adapter).where(one_of(Adapter.id, {row.adapter_id for row in rows})))
    adapters = {adapter.id: adapter for adapter in known}
    found = [TouchedVersion(row.id, row.number, row.dataset_id, adapters[row.adapter_id]) for row in rows]
    return sorted(found, key=lambda each: (each.adapter.name, each.number))


def loaded_versions(session: Session, touched: Collection[TouchedVersion]) -> list[Version]:
    """Their rows, in the same order. Reports are left out until they are asked for."""
    dataset = joinedload(Version.dataset).joinedload(Dataset.task)
    query = select(Version).where(one_of(Version.id, [each.id for each in touched]))
    rows = session.scalars(query.options(joinedload(Version.adapter), dataset, defer(Version.report)))
    by_id = {row.id: row for row in rows}
    return [by_id[each.id] for each in touched]


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
    holding = select(DatasetItem.dataset_id).where(DatasetItem.trajectory_id == trajectory.id)
    trained = _trained_on(holding)
    every = set(session.scalars(select(_with_descendants(trained).c.id)))
    serving = every & serving_ids(session, trajectory.project_id)
    mine = select(Version.id).join(trained, trained.c.id == Version.id)
    newest = session.scalars(mine.order_by(Version.created_at.desc()).limit(most))
    shown = session.scalars(
        select(Version)
        .join(Adapter, Adapter.id == Version.adapter_id)
        .where(one_of(Version.id, {*serving, *newest}))
        .options(joinedload(Version.adapter), defer(Version.report))
        .order_by(Adapter.name, Version.number)
    ).all()
    own = one_of(DatasetItem.dataset_id, {version.dataset_id for version in shown})
    datasets = set(session.scalars(holding.where(own)))
    return TouchedVersions(
        shown=tuple(shown),
        direct=frozenset(version.id for version in shown if version.dataset_id in datasets),
        serving=serving_of(session, [version.id for version in shown]),
        count=len(every),
    )


def serving_ids(session: Session, project_id: uuid.UUID) -> set[uuid.UUID]:
    """Versions of a project that an alias names or a live route has."""
    mine = Adapter.project_id == project_id
    named = select(Alias.version_id).join(Adapter, Adapter.id == Alias.adapter_id).where(mine)
    routed = select(RouteArm.version_id).join(Route, Route.id == RouteArm.route_id)
    routed = routed.join(Adapter, Adapter.id == Route.adapter_id).where(mine, Route.state == "live")
    return set(session.scalars(named.union(routed)))


def suites_of(session: Session, trajectory: Trajectory) -> list[Suite]:
    """Suites that have the trajectory among their items, oldest first."""
    holding = select(Suite).join(SuiteItem).where(SuiteItem.trajectory_id == trajectory.id)
    return list(session.scalars(holding.options(joinedload(Suite.task)).order_by(Suite.number)))


def learned_deleted(session: Session, versions: Collection[Version]) -> set[uuid.UUID]:
    """Which of the versions were trained on data that was deleted since, or go on from one that was."""
    trained = _trained_on(select(DeletionDataset.dataset_id))
    of_these = {version.adapter_id for version in versions}
    first = select(Version.id).join(trained, trained.c.id == Version.id).where(one_of(Version.adapter_id, of_these))
    learned = _with_descendants(first.subquery())
    wanted = one_of(Version.id, [version.id for version in versions])
    return set(session.scalars(select(Version.id).join(learned, learned.c.id == Version.id).where(wanted)))


def _with_descendants(first: FromClause) -> CTE:
    """Ids of these versions, and of all that go on from them."""
    found = select(first.c.id).cte("learned", recursive=True)
    return found.union(select(Version.id).join(found, Version.parent_id == found.c.id))


def _trained_on(dataset_ids: Collection[uuid.UUID] | Select[uuid.UUID]) -> Subquery:
    """Ids of the versions that were trained on one of the datasets, or have an ancestor at their origin that was."""

    def among(column: InstrumentedAttribute[uuid.UUID]) -> ColumnElement[bool]:
        return column.in_(dataset_ids) if isinstance(dataset_ids, Select) else one_of(column, dataset_ids)

    own = select(Version.id).where(among(Version.dataset_id))
    imported = select(VersionImportDataset.version_id).where(among(VersionImportDataset.dataset_id))
    return own.union(imported).subquery("trained")


def serving_of(session: Session, version_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, ServingSummary]:
    """Where each version serves, by version id; every one of the ids has an entry."""
    aliases: dict[uuid.UUID, list[str]] = {}
    for alias in session.scalars(select(Alias).where(one_of(Alias.version_id, version_ids)).order_by(Alias.name)):
        aliases.setdefault(alias.version_id, []).append(alias.name)
    routes: dict[uuid.UUID, list[int]] = {}
    live = (
        select(RouteArm.version_id, Route.number)
        .join(Route, Route.id == RouteArm.route_id)
        .where(one_of(RouteArm.version_id, version_ids), Route.state == "live")
    )
    for version_id, number in session.execute(live.order_by(Route.number)):
        routes.setdefault(version_id, []).append(number)
    answers = select(Exposure.version_id, func.count()).where(one_of(Exposure.version_id, version_ids))
    exposures = {row[0]: row[1] for row in session.execute(answers.group_by(Exposure.version_id))}
    return {
        version_id: ServingSummary(
            aliases=tuple(aliases.get(version_id, ())),
            routes=tuple(routes.get(version_id, ())),
            exposures=exposures.get(version_id, 0),
        )
        for version_id in version_ids
    }
