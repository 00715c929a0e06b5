"""Holds: the references to a version that keep it from being archived or purged."""

import uuid
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.jobs import LIVE, versions_needed
from registry.models import Adapter, Job, Retraining, Version, VersionTag
from registry.serving.aliases import history, list_aliases
from registry.serving.rollback import rollback_target
from registry.serving.routes import live_route
from registry.versions.records import list_versions
from registry.versions.state import states_of

ARCHIVE_BLOCKERS = ("alias", "route", "child", "job")
"""Kinds of holds that forbid archiving; retention respects the other kinds too."""


@dataclass(frozen=True)
class Hold:
    kind: str
    text: str
    """One clause for people, such as `alias champion points at it`."""


Holds = dict[uuid.UUID, list[Hold]]


def holds_of(session: Session, adapter: Adapter) -> Holds:
    """All holds on the adapter's versions, by version id.

    Kinds: `alias`, `rollback` (one call would go back to it), `route`, `child`, `archived_child`, `job`, `tag`.
    """
    holds: Holds = {}
    _of_aliases(session, adapter, holds)
    route = live_route(session, adapter)
    if route is not None:
        for arm in route.arms:
            _add(holds, arm.version_id, "route", f"live route {route.number} serves it")
    _of_children(session, adapter, holds)
    _of_jobs(session, adapter, holds)
    tags = select(VersionTag).join(Version, Version.id == VersionTag.version_id).where(Version.adapter_id == adapter.id)
    for tag in session.scalars(tags.order_by(VersionTag.name)):
        _add(holds, tag.version_id, "tag", f"it is tagged {tag.name}")
    return holds


def _of_aliases(session: Session, adapter: Adapter, holds: Holds) -> None:
    for alias in list_aliases(session, adapter):
        _add(holds, alias.version_id, "alias", f"alias {alias.name} points at it")
        target = rollback_target(session, history(session, adapter, alias.name)).target
        if target is not None:
            _add(holds, target.id, "rollback", f"a rollback of {alias.name} goes back to it")


def _of_children(session: Session, adapter: Adapter, holds: Holds) -> None:
    """A child goes on from its parent, and with strategy `isolated` it serves with it.

    A child that can never serve again holds nothing; an archived one may be taken out again.
    """
    rows = list_versions(session, adapter)
    states = states_of(session, [row.id for row in rows])
    for row in rows:
        state = states.get(row.id)
        if row.parent_id is None or (state is not None and (state.purged_at or state.withdrawn_at)):
            continue
        kind = "archived_child" if state is not None and state.archived_at else "child"
        _add(holds, row.parent_id, kind, f"version {row.number} was trained from it")


def _of_jobs(session: Session, adapter: Adapter, holds: Holds) -> None:
    """Live jobs name the versions that they read by number; retraining steps that have not begun name them by id."""
    by_number = {version.number: version.id for version in list_versions(session, adapter)}
    live = session.scalars(select(Job).where(Job.adapter_id == adapter.id, Job.state.in_(LIVE)))
    for job in live:
        for number in versions_needed(job):
            if number in by_number:
                _add(holds, by_number[number], "job", f"job {job.id} is {job.state} and reads it")
    waiting = select(Retraining).where(
        Retraining.adapter_id == adapter.id, Retraining.job_id.is_(None), Retraining.stopped.is_(None)
    )
    for step in session.scalars(waiting):
        if step.parent_id is not None:
            _add(holds, step.parent_id, "job", "a retraining goes on from it")


def _add(holds: Holds, version_id: uuid.UUID, kind: str, text: str) -> None:
    holds.setdefault(version_id, []).append(Hold(kind, text))
