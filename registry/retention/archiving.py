"""Archiving hides a version, so that nothing can serve it or train from it until it is taken out again."""

from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import VersionNeeded
from registry.models import Adapter, Version
from registry.retention.holds import ARCHIVE_BLOCKERS, needs_of
from registry.versions.state import record_change, standing_of


def archive(session: Session, adapter: Adapter, version: Version, *, actor: str, reason: str) -> None:
    """Hide a version. Archiving twice is harmless.

    Args:
        adapter: locked by the caller, so that nothing begins to need the version meanwhile.

    Raises:
        VersionNeeded: an alias, the live route, a child or a job that trains one needs it.
    """
    needs = [need for need in needs_of(session, adapter).get(version.id, ()) if need.kind in ARCHIVE_BLOCKERS]
    if needs:
        raise VersionNeeded(
            f"{adapter.name}@{version.number} can't be archived: {'; '.join(need.text for need in needs)}. Move or "
            "end what needs it first"
        )
    standing = standing_of(session, version)
    if standing.archived_at is None:
        standing.archived_at = utc_now()
        record_change(session, version, "archived", actor=actor, reason=reason)


def unarchive(session: Session, version: Version, *, actor: str, reason: str) -> None:
    """Harmless for a version that is not archived."""
    standing = standing_of(session, version)
    if standing.archived_at is not None:
        standing.archived_at = None
        record_change(session, version, "unarchived", actor=actor, reason=reason)
