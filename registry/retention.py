"""Retention: removes the bytes of old versions. Rows, hashes and lineage stay for ever.

Kept are the newest N versions and whatever an alias, its next rollback, the live route, a child, a live job or a tag
needs (`registry.version_needs`). A version whose bytes are gone is not servable.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import Invalid
from registry.models import Adapter, RetentionPolicy, Version, VersionStanding
from registry.version_needs import needs_of
from registry.version_standing import record_change, standing_of, standings
from registry.versions import list_versions


@dataclass(frozen=True)
class RetentionPlan:
    keep_last: int
    kept: tuple[tuple[Version, tuple[str, ...]], ...]
    """With the reasons, for people."""
    purged: tuple[Version, ...]
    """Whose bytes go."""


def keep_last(session: Session, adapter: Adapter, default: int) -> int:
    """The adapter's policy, or the settings' default."""
    policy = session.get(RetentionPolicy, adapter.id)
    return default if policy is None else policy.keep_last


def set_policy(session: Session, adapter: Adapter, keep_last: int, *, actor: str) -> RetentionPolicy:
    """Raises Invalid."""
    if not 1 <= keep_last < 2**31:
        raise Invalid(f"keep_last is {keep_last}; expected at least 1")
    policy = session.get(RetentionPolicy, adapter.id, with_for_update=True)
    if policy is None:
        policy = RetentionPolicy(adapter_id=adapter.id)
        session.add(policy)
    policy.keep_last, policy.actor, policy.changed_at = keep_last, actor, utc_now()
    session.flush()
    return policy


def plan_retention(session: Session, adapter: Adapter, keep_last: int) -> RetentionPlan:
    """What would go, changing nothing. Versions whose bytes are gone already are left out."""
    if keep_last < 1:
        raise Invalid(f"keep_last is {keep_last}; expected at least 1")
    rows = list_versions(session, adapter)
    gone = {id_ for id_, standing in standings(session, [row.id for row in rows]).items() if standing.purged_at}
    needs = needs_of(session, adapter)
    newest = {row.id for row in rows[-keep_last:]}
    kept: list[tuple[Version, tuple[str, ...]]] = []
    purged: list[Version] = []
    for row in rows:
        reasons = [need.text for need in needs.get(row.id, ())]
        if row.id in newest:
            reasons.append(f"it is one of the newest {keep_last}")
        if row.id in gone:
            continue
        if reasons:
            kept.append((row, tuple(reasons)))
        else:
            purged.append(row)
    return RetentionPlan(keep_last, tuple(kept), tuple(purged))


def purge(session: Session, adapter: Adapter, versions: Sequence[Version], *, actor: str, reason: str) -> list[str]:
    """Mark versions as purged. Folders to remove from the store after the commit; garbage collection finds the rest.

    Args:
        adapter: locked by the caller since the plan was made, so that nothing has begun to need them.
    """
    for version in versions:
        standing_of(session, version).purged_at = utc_now()
        record_change(session, version, "purged", actor=actor, reason=reason)
    # Content-addressed: versions with equal bytes share them, in this adapter or another.
    keys = {version.artifact_key for version in versions}
    gone = select(VersionStanding.version_id).where(VersionStanding.purged_at.is_not(None))
    shared = session.scalars(
        select(Version.artifact_key).where(Version.artifact_key.in_(keys), Version.id.not_in(gone))
    )
    return sorted(keys - set(shared))
