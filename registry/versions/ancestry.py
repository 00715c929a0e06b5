"""The ancestry of versions: the chain of parents, and the tasks that were learned along it."""

import uuid
from collections.abc import Collection, Iterable

from sqlalchemy import CTE, Integer, cast, func, null, select, union_all
from sqlalchemy.orm import Session, joinedload

from registry.models import Dataset, Task, Version, VersionImportTask


def learned_tasks(session: Session, version: Version | None) -> list[Task]:
    """The tasks of a version's lineage in the order they were first learned; empty for the bare base."""
    return tasks_by_version(session, [version])[version.id] if version else []


def tasks_by_version(session: Session, versions: Collection[Version]) -> dict[uuid.UUID, list[Task]]:
    """`learned_tasks` of each version, in one query however many they are and however long their chains."""
    chain = _chains(version.id for version in versions)
    own = select(chain, cast(null(), Integer).label("place"), Dataset.task_id)
    imported = select(chain, VersionImportTask.place, VersionImportTask.task_id)
    learned = union_all(
        own.join(Dataset, Dataset.id == chain.c.dataset_id),
        imported.join(VersionImportTask, VersionImportTask.version_id == chain.c.id),
    ).subquery()
    rows = session.execute(
        select(learned.c.id, learned.c.parent_id, Task)
        .join(Task, Task.id == learned.c.task_id)
        # A parent has a smaller number, so that what it learned is known when its children are reached.
        .order_by(learned.c.number, learned.c.id, learned.c.place.nulls_last())
    )
    found: dict[uuid.UUID, dict[uuid.UUID, Task]] = {}
    for version_id, parent_id, task in rows:
        if version_id not in found:
            found[version_id] = dict(found.get(parent_id, {}))
        found[version_id].setdefault(task.id, task)
    return {version.id: list(found[version.id].values()) for version in versions}


def ancestors_and_self(session: Session, version: Version | None) -> list[Version]:
    """The versions from the first ancestor to the version itself; empty for the bare base."""
    if version is None:
        return []
    chain = _chains([version.id])
    query = select(Version).join(chain, chain.c.id == Version.id)
    loaded = query.options(joinedload(Version.dataset).joinedload(Dataset.task))
    return list(session.scalars(loaded.order_by(Version.number)))


def ancestor_numbers(session: Session, version: Version) -> tuple[int, ...]:
    """The numbers of a version's ancestors, the first one first and the parent last."""
    chain = _chains([version.id])
    query = select(chain.c.number).where(chain.c.number < version.number).order_by(chain.c.number)
    return tuple(session.scalars(query))


def lineage_tasks(session: Session, version: Version) -> list[Task]:
    """`learned_tasks` of one version with a long chain, whose other versions nobody asks for."""
    chain = _chains([version.id])
    own = select(chain.c.number, cast(null(), Integer).label("place"), Dataset.task_id)
    imported = select(chain.c.number, VersionImportTask.place, VersionImportTask.task_id)
    learned = union_all(
        own.join(Dataset, Dataset.id == chain.c.dataset_id),
        imported.join(VersionImportTask, VersionImportTask.version_id == chain.c.id),
    ).subquery()
    first = select(
        learned.c.task_id, func.min(learned.c.number).label("number"), func.min(learned.c.place).label("place")
    )
    found = first.group_by(learned.c.task_id).subquery()
    order = found.c.number, found.c.place.nulls_last()
    return list(session.scalars(select(Task).join(found, found.c.task_id == Task.id).order_by(*order)))


def _chains(version_ids: Iterable[uuid.UUID]) -> CTE:
    """The versions and all their ancestors, once each."""
    columns = Version.id, Version.parent_id, Version.number, Version.dataset_id
    chain = select(*columns).where(Version.id.in_(list(version_ids))).cte("chain", recursive=True)
    return chain.union(select(*columns).join(chain, chain.c.parent_id == Version.id))
