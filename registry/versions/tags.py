"""Tags: free labels that people put on versions. Each change is a row with who and when."""

import uuid
from collections.abc import Iterable

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.models import Version, VersionChange, VersionTag
from registry.names import check_name
from registry.versions.state import record_change


def tag(session: Session, version: Version, name: str, *, actor: str) -> None:
    """Tagging twice is harmless. Raises InvalidName."""
    check_name("tag", name)
    added = session.scalar(
        insert(VersionTag)
        .values(version_id=version.id, name=name, created_at=utc_now())
        .on_conflict_do_nothing()
        .returning(VersionTag.name)
    )
    if added is not None:
        record_change(session, version, "tagged", actor=actor, evidence={"tag": name})


def untag(session: Session, version: Version, name: str, *, actor: str) -> None:
    """Removing a tag that is not there is harmless."""
    removed = session.scalar(
        delete(VersionTag)
        .where(VersionTag.version_id == version.id, VersionTag.name == name)
        .returning(VersionTag.name)
    )
    if removed is not None:
        record_change(session, version, "untagged", actor=actor, evidence={"tag": name})


def tags_of(session: Session, version_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, list[str]]:
    """Sorted tags by version id; versions without a tag are left out."""
    query = select(VersionTag.version_id, VersionTag.name).where(VersionTag.version_id.in_(set(version_ids)))
    found: dict[uuid.UUID, list[str]] = {}
    for version_id, name in session.execute(query.order_by(VersionTag.name)):
        found.setdefault(version_id, []).append(name)
    return found


def version_changes(session: Session, version: Version) -> list[VersionChange]:
    """Oldest first."""
    query = select(VersionChange).where(VersionChange.version_id == version.id)
    return list(session.scalars(query.order_by(VersionChange.seq)))
