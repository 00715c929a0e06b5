"""Retention: removes the bytes of old versions. Rows, hashes and lineage stay for ever, and importing an exported copy
of the version brings the bytes back.

It keeps the newest N versions and every version with a hold (`registry.retention.holds`): an alias, its next rollback,
the live route, a child, a live job or a tag. A version whose bytes are gone is not servable.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from registry.clock import utc_now
from registry.errors import Invalid, VersionNotServable
from registry.models import Adapter, RetentionPolicy, Version
from registry.retention.holds import holds_of
from registry.versions.artifacts import artifact_beside, artifact_folders, kept_artifacts
from registry.versions.records import list_versions
from registry.versions.state import locked_state, record_change, states_of


@dataclass(frozen=True)
class RetentionPlan:
    keep_last: int
    kept: tuple[tuple[Version, tuple[str, ...]], ...]
    """Each version that stays, with the reasons, for people."""
    purged: tuple[Version, ...]
    """Versions that lose their bytes."""


def keep_last(session: Session, adapter: Adapter, default: int) -> int:
    """Number of newest versions that stay: the adapter's policy, or the settings' `default`."""
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
    """Which versions would lose their bytes; changes nothing. Leaves out versions that have lost them already."""
    if keep_last < 1:
        raise Invalid(f"keep_last is {keep_last}; expected at least 1")
    rows = list_versions(session, adapter)
    gone = {id_ for id_, state in states_of(session, [row.id for row in rows]).items() if state.purged_at}
    holds = holds_of(session, adapter)
    newest = {row.id for row in rows[-keep_last:]}
    kept: list[tuple[Version, tuple[str, ...]]] = []
    purged: list[Version] = []
    for row in rows:
        reasons = [hold.text for hold in holds.get(row.id, ())]
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
    """Mark versions as purged. Returns the folders to remove from the store after the commit.

    Garbage collection finds what is not removed then.

    Args:
        adapter: locked by the caller since the plan was made, so that no new hold has come.
    """
    for version in versions:
        locked_state(session, version).purged_at = utc_now()
        record_change(session, version, "purged", actor=actor, reason=reason)
    # Content-addressed: versions with equal bytes share them, in this adapter or another.
    folders = artifact_folders(session, versions)
    return sorted(folders - kept_artifacts(session, folders))


def restore(
    session: Session, version: Version, parts: Collection[str], *, actor: str, evidence: dict[str, Any]
) -> bool:
    """Mark a version as no longer purged; returns whether it was. Its bytes, checked, lie in the store again.

    Args:
        version: one of an adapter that the caller has locked.
        parts: hashes of the artifacts that it answers with beside its own.

    Raises:
        VersionNotServable: nothing would keep the bytes of a part, which belong to a version that is purged itself.
    """
    state = locked_state(session, version)
    if state.purged_at is None:
        return False
    state.purged_at = None
    record_change(session, version, "restored", actor=actor, evidence=evidence)
    beside = {artifact_beside(version.artifact_key, part): part for part in parts}
    lost = sorted(beside[folder] for folder in beside.keys() - kept_artifacts(session, beside.keys()))
    if lost:
        name = f"{version.adapter.name}@{version.number}"
        raise VersionNotServable(
            f"{name} answers with the memories of earlier versions too, and retention removed the bytes of "
            f"{', '.join(lost)}: import the archives of those versions first"
        )
    return True
