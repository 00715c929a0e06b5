"""Provenance of an archive in this project: which of its datasets the version learned, and whether it may be imported.

Deletions can't reach an archive, so it is checked each time that it comes in: a version that learned data which was
deleted here is refused, whatever became of the versions that were here then. Its bytes count as well as its
description: what the project knows of an artifact with the same hash is true of this one.
"""

import uuid
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.errors import LearnedDeleted
from registry.models import (
    Adapter,
    Dataset,
    Deletion,
    DeletionDataset,
    Version,
    VersionImportDataset,
    VersionState,
)
from registry.versions.ancestry import ancestors_and_self

_ADVICE = "Train a version without that data and export it"


def check_learned_nothing_deleted(session: Session, project_id: uuid.UUID, description: dict[str, Any]) -> None:
    """Raises LearnedDeleted: a withdrawn version of the project has the same bytes, or is an ancestor or a part of this
    one; or a dataset of the lineage held data that was deleted since."""
    name = f"{description['adapter']}@{description['number']}"
    ancestors = {ancestor["artifact_hash"] for ancestor in description["lineage"]}
    withdrawn = session.execute(
        select(Adapter.name, Version.number, Version.artifact_hash, VersionState.withdrawn_at)
        .join(Version, Version.adapter_id == Adapter.id)
        .join(VersionState, VersionState.version_id == Version.id)
        .where(
            Adapter.project_id == project_id,
            Version.artifact_hash.in_(ancestors | _artifacts(description)),
            VersionState.withdrawn_at.is_not(None),
        )
        .order_by(Adapter.name, Version.number)
    ).first()
    if withdrawn is not None:
        here = (
            f"{withdrawn.name}@{withdrawn.number}, which was withdrawn at {withdrawn.withdrawn_at:%Y-%m-%d %H:%M} UTC"
        )
        same = withdrawn.artifact_hash == description["artifact_hash"]
        raise LearnedDeleted(
            f"the archive of {name} {'has the artifact of' if same else 'goes on from'} {here}: it was trained on data "
            f"that was deleted. {_ADVICE}"
        )
    erased = session.execute(
        select(Dataset.content_hash, Deletion.id, Deletion.created_at)
        .join(DeletionDataset, DeletionDataset.dataset_id == Dataset.id)
        .join(Deletion, Deletion.id == DeletionDataset.deletion_id)
        .where(Dataset.id.in_(datasets_learned(session, project_id, description)))
        .order_by(Deletion.seq)
    ).first()
    if erased is not None:
        raise LearnedDeleted(
            f"the lineage of {name} has dataset {erased.content_hash}, of which deletion {erased.id} removed data here "
            f"at {erased.created_at:%Y-%m-%d %H:%M} UTC. {_ADVICE}"
        )


def datasets_learned(session: Session, project_id: uuid.UUID, description: dict[str, Any]) -> set[uuid.UUID]:
    """Datasets of the project that the version or an ancestor was trained on."""
    named = {ancestor["dataset_hash"] for ancestor in description["lineage"]}
    found = set(
        session.scalars(select(Dataset.id).where(Dataset.project_id == project_id, Dataset.content_hash.in_(named)))
    )
    twins = session.scalars(
        select(Version)
        .join(Adapter, Adapter.id == Version.adapter_id)
        .where(Adapter.project_id == project_id, Version.artifact_hash.in_(_artifacts(description)))
    ).all()
    ancestors = {version.id: version for twin in twins for version in ancestors_and_self(session, twin)}
    imported = select(VersionImportDataset.dataset_id).where(VersionImportDataset.version_id.in_(ancestors))
    return found | {version.dataset_id for version in ancestors.values()} | set(session.scalars(imported))


def _artifacts(description: dict[str, Any]) -> set[str]:
    """Hashes of all artifacts that the version answers with."""
    return {description["artifact_hash"], *description["parts"].values()}
