"""Where a version's bytes come from: the object store, from which the model's thread fetches an artifact's files."""

from functools import partial
from pathlib import Path

from api.inference.requests import MemorySource
from memgen.artifacts.artifact import MOMENTS_FILE
from registry.binding import check_bound
from registry.models import Adapter, Version
from registry.versions.artifacts import artifact_beside
from registry.wiring import Services


def source_of(services: Services, adapter: Adapter | None, version: Version | None) -> MemorySource | None:
    """The source of the memory of an adapter's version; None for the bare base. Nothing is fetched yet."""
    if adapter is None or version is None:
        return None

    def fetch_other(artifact_hash: str, folder: Path) -> None:
        fetch(artifact_beside(version.artifact_key, artifact_hash), folder)

    def fetch(prefix: str, folder: Path) -> None:
        services.store.get_folder(prefix, folder, without=(MOMENTS_FILE,))

    return MemorySource(
        name=version.id.hex,
        manifest_sha256=version.artifact_hash,
        fetch=partial(fetch, version.artifact_key),
        fetch_other=fetch_other,
        check_base=partial(check_bound, adapter),
        read_file=lambda name: services.store.get(f"{version.artifact_key}/{name}"),
        artifact_key=version.artifact_key,
        label=f"{adapter.name}@{version.number}",
    )
