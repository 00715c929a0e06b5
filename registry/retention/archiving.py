"""Archiving hides a version: nothing can serve it until it is taken out again. A training may still go on from it."""

from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import VersionNeeded
from registry.models import Adapter, Version
from registry.retention.holds import ARCHIVE_BLOCKERS, holds_of
from registry.versions.state import locked_state, record_change


def archive(session: Session, adapter: Adapter, version: Version, *, actor: str, reason: str) -> None:
    """Hide a version. Archiving twice is harmless.

    Args:
        adapter: locked by the caller, so that no new hold comes meanwhile.

    Raises:
        VersionNeeded: an alias, the live route, a child or a live job holds it.
    """
    holds = [hold for hold in holds_of(session, adapter).get(version.id, ()) if hold.kind in ARCHIVE_BLOCKERS]
    if holds:
        raise VersionNeeded(
            f"{adapter.name}@{version.number} can't be archived: {'; '.join(hold.text for hold in holds)}. Move or "
            "end what needs it first"
        )
    state = locked_state(session, version)
    if state.archived_at is None:
        state.archived_at = utc_now()
        record_change(session, version, "archived", actor=actor, reason=reason)


def unarchive(session: Session, version: Version, *, actor: str, reason: str) -> None:
    """Harmless for a version that is not archived."""
    state = locked_state(session, version)
    if state.archived_at is not None:
        state.archived_at = None
        record_change(session, version, "unarchived", actor=actor, reason=reason)
