"""The retention policy of an adapter, applied: rows first, then the bytes that nothing names any more."""

import uuid
from collections.abc import Sequence

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, sessionmaker

from registry.database import transaction
from registry.errors import StoreUnavailable
from registry.models import Adapter, RetentionPolicy, Version, VersionState
from registry.object_store import ObjectStore
from registry.retention.policy import plan_retention, purge
from registry.versions.artifacts import kept_artifacts


def adapters_over_their_policy(session: Session, adapter_ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """The adapters among these that have a policy and more versions with bytes than it keeps without a hold."""
    purged = exists().where(VersionState.version_id == Version.id, VersionState.purged_at.is_not(None))
    query = (
        select(RetentionPolicy.adapter_id)
        .join(Version, Version.adapter_id == RetentionPolicy.adapter_id)
        .where(RetentionPolicy.adapter_id.in_(adapter_ids), ~purged)
        .group_by(RetentionPolicy.adapter_id, RetentionPolicy.keep_last)
        .having(func.count() > RetentionPolicy.keep_last)
    )
    return list(session.scalars(query))


def apply_policy(
    sessions: sessionmaker[Session], store: ObjectStore, adapter_id: uuid.UUID, *, actor: str, reason: str
) -> list[int]:
    """Remove the bytes of the versions that the adapter's policy does not keep. Returns their numbers."""
    with transaction(sessions) as session:
        adapter = session.get_one(Adapter, adapter_id, with_for_update=True)
        policy = session.get(RetentionPolicy, adapter_id)
        if policy is None:
            return []
        versions = plan_retention(session, adapter, policy.keep_last).purged
        folders = purge(session, adapter, versions, actor=actor, reason=reason) if versions else []
        numbers = [version.number for version in versions]
    remove_folders(sessions, store, folders)
    return numbers


def remove_folders(sessions: sessionmaker[Session], store: ObjectStore, folders: Sequence[str]) -> None:
    """Remove folders of purged versions, but for those that an import has brought back meanwhile.

    What the store does not remove now, because it is away, garbage collection removes.
    """
    try:
        for folder in folders:
            with transaction(sessions) as session:
                referenced = kept_artifacts(session, [folder])
            if not referenced:
                store.delete_folder(folder)
    except StoreUnavailable:
        return
