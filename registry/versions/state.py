"""State of a version after its registration: archived, withdrawn, purged. The version itself never changes.

Each change is a row with who, when and why. A version in one of these states is not servable: no alias moves to it, and
it answers no request.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import Invalid, VersionNotServable
from registry.models import Adapter, Version, VersionChange, VersionState


def why_not_servable(session: Session, version: Version) -> str | None:
    """Why the version may not answer, in words for people; None if it may."""
    state = session.get(VersionState, version.id)
    if state is None:
        return None
    reason = _why_bytes_are_out(version, state, "Promote another version")
    if reason is None and state.archived_at is not None:
        reason = f"{version.adapter.name}@{version.number} is archived; take it out of the archive first"
    return reason


def why_not_parent(session: Session, version: Version | None) -> str | None:
    """Why no training may start from the version; None if one may. The bare base (None) and an archived version are
    parents like any other."""
    state = session.get(VersionState, version.id) if version else None
    if version is None or state is None:
        return None
    return _why_bytes_are_out(
        version,
        state,
        "What goes on from it would have learned it too: train from another parent, 0 for none, or promote another "
        "version first",
    )


def why_not_exportable(session: Session, version: Version) -> str | None:
    """Why the version's bytes may not leave as an archive file; None if they may, as those of an archived version."""
    state = session.get(VersionState, version.id)
    if state is None:
        return None
    return _why_bytes_are_out(version, state, "An archive would carry on what it learned: export another version")


def why_not_analyzable(session: Session, version: Version) -> str | None:
    """Why nobody may look into the version's memory; None if one may, as into that of an archived version."""
    state = session.get(VersionState, version.id)
    if state is None:
        return None
    return _why_bytes_are_out(version, state, "What it learned is not to be looked into: analyze another version")


def check_servable(session: Session, version: Version) -> None:
    """Raises VersionNotServable for the reason of `why_not_servable`."""
    _refuse(why_not_servable(session, version))


def check_parent(session: Session, version: Version | None) -> None:
    """Raises VersionNotServable for the reason of `why_not_parent`."""
    _refuse(why_not_parent(session, version))


def check_exportable(session: Session, version: Version) -> None:
    """Raises VersionNotServable for the reason of `why_not_exportable`."""
    _refuse(why_not_exportable(session, version))


def check_analyzable(session: Session, version: Version) -> None:
    """Raises Invalid for a version without latents, VersionNotServable for the reason of `why_not_analyzable`."""
    if version.form == "lora":
        raise Invalid(
            f"{version.adapter.name}@{version.number} is a plain LoRA of the base (form 'lora'), which weaves no "
            "memory: there are no latents to look at. Analyze a version that is a memory"
        )
    _refuse(why_not_analyzable(session, version))


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise VersionNotServable(reason)


def _why_bytes_are_out(version: Version, state: VersionState, advice: str) -> str | None:
    """Why nobody may use the bytes; `advice` is what to do about a withdrawn version."""
    name = f"{version.adapter.name}@{version.number}"
    if state.withdrawn_at is not None:
        return (
            f"{name} was withdrawn at {state.withdrawn_at:%Y-%m-%d %H:%M} UTC: it was trained on data that was "
            f"deleted. {advice}"
        )
    if state.purged_at is not None:
        return (
            f"the bytes of {name} were removed by retention at {state.purged_at:%Y-%m-%d %H:%M} UTC; import its "
            "archive, or train it again"
        )
    return None


@dataclass(frozen=True)
class ServableVersion:
    number: int
    created_at: datetime


def servable_versions(
    session: Session, project_id: uuid.UUID, *, newest: int | None = None
) -> dict[uuid.UUID, list[ServableVersion]]:
    """Versions that may answer, newest first, by the id of their adapter: none that is archived, withdrawn or purged.

    Args:
        newest: versions of each adapter to look at; None is all.
    """
    each = select(Version.id, Version.number, Version.created_at).where(Version.adapter_id == Adapter.id)
    last = each.order_by(Version.number.desc()).limit(newest).lateral("last")
    taken_out = VersionState.archived_at, VersionState.withdrawn_at, VersionState.purged_at
    rows = session.execute(
        select(Adapter.id, last.c.number, last.c.created_at)
        .join(last, true())
        .outerjoin(VersionState, VersionState.version_id == last.c.id)
        .where(Adapter.project_id == project_id, *(moment.is_(None) for moment in taken_out))
        .order_by(Adapter.id, last.c.number.desc())
    )
    found: dict[uuid.UUID, list[ServableVersion]] = {}
    for adapter_id, number, created_at in rows:
        found.setdefault(adapter_id, []).append(ServableVersion(number, created_at))
    return found


def withdraw(session: Session, version: Version, *, actor: str, reason: str, evidence: dict[str, Any]) -> None:
    """Make a version unservable for ever. Withdrawing twice is harmless."""
    state = locked_state(session, version)
    if state.withdrawn_at is None:
        state.withdrawn_at = utc_now()
        record_change(session, version, "withdrawn", actor=actor, reason=reason, evidence=evidence)


def locked_state(session: Session, version: Version) -> VersionState:
    """The version's state, locked; the row is made if there is none."""
    session.execute(insert(VersionState).values(version_id=version.id).on_conflict_do_nothing())
    query = select(VersionState).where(VersionState.version_id == version.id).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).one()


def states_of(session: Session, version_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, VersionState]:
    query = select(VersionState).where(VersionState.version_id.in_(set(version_ids)))
    return {row.version_id: row for row in session.scalars(query)}


def record_change(
    session: Session,
    version: Version,
    kind: str,
    *,
    actor: str,
    reason: str = "",
    evidence: dict[str, Any] | None = None,
) -> None:
    session.add(VersionChange(version_id=version.id, kind=kind, actor=actor, reason=reason, evidence=evidence or {}))
    session.flush()
