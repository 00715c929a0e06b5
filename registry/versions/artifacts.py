"""Folders of artifacts in the object store, and which of them versions still use."""

import uuid
from collections.abc import Collection

from sqlalchemy import func, select, true
from sqlalchemy.orm import Session

from registry.models import Version, VersionImport, VersionState


def artifact_key(project_id: uuid.UUID, artifact_hash: str) -> str:
    """Folder of an artifact in the object store."""
    return f"projects/{project_id}/artifacts/{artifact_hash}"


def artifact_beside(key: str, artifact_hash: str) -> str:
    """Folder of another artifact of the same project, which the one in folder `key` refers to by hash."""
    return f"{key.rpartition('/')[0]}/{artifact_hash}"


def artifact_folders(session: Session, versions: Collection[Version]) -> set[str]:
    """Folders of the versions' artifacts and of imported parts (`registry.transfer.archive`)."""
    imported = select(VersionImport).where(VersionImport.version_id.in_([version.id for version in versions]))
    parts = {row.version_id: row.origin.get("parts", {}) for row in session.scalars(imported)}
    return {version.artifact_key for version in versions} | {
        artifact_beside(version.artifact_key, part)
        for version in versions
        for part in parts.get(version.id, {}).values()
    }


def kept_artifacts(session: Session, folders: Collection[str]) -> set[str]:
    """The folders among these that belong, as in `artifact_folders`, to a version whose bytes are not purged."""
    kept = Version.id.not_in(select(VersionState.version_id).where(VersionState.purged_at.is_not(None)))
    own = session.scalars(select(Version.artifact_key).where(Version.artifact_key.in_(folders), kept))
    part = func.jsonb_each_text(VersionImport.origin["parts"]).table_valued("key", "value")
    beside = session.execute(
        select(Version.artifact_key, part.c.value)
        .join(VersionImport, VersionImport.version_id == Version.id)
        .join(part, true())
        .where(part.c.value.in_({folder.rpartition("/")[2] for folder in folders}), kept)
    )
    return set(own) | {found for key, hash_ in beside if (found := artifact_beside(key, hash_)) in folders}
