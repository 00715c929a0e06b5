"""The base model of a worker process, loaded once and kept warm between jobs, with the memories it has at hand."""

from memgen.backbone import load_backbone, named_dtype
from memgen.errors import ArtifactMismatch
from memgen.host import AdapterHost
from memgen.loaded import LoadedMemories
from registry.models import Adapter, Version
from registry.wiring import Services


class Model:
    def __init__(self, services: Services) -> None:
        settings = services.settings
        backbone = load_backbone(
            settings.base_model,
            cache_dir=settings.models_dir,
            revision=settings.base_revision,
            device=settings.device,
            dtype=named_dtype(settings.base_dtype),
        )
        self.host = AdapterHost(backbone)
        self._services = services
        self._loaded = LoadedMemories(self.host, settings.cached_versions)

    def check_base(self, adapter: Adapter) -> None:
        """Raises ArtifactMismatch unless the adapter is bound to this worker's base."""
        backbone = self.host.backbone
        if adapter.base_revision != backbone.revision:
            raise ArtifactMismatch(
                f"adapter {adapter.name!r} is bound to {adapter.base_model} at {adapter.base_revision}; this worker "
                f"has {backbone.name} at {backbone.revision}. Start a worker with that base (MEMGEN_BASE_MODEL), or "
                "create a new adapter"
            )

    def memory_of(self, version: Version) -> str:
        """The name of the version's memory in the host, fetched and checked if it is not there yet."""
        store, prefix = self._services.store, version.artifact_key
        name = self._loaded.ensure(
            version.id.hex, version.artifact_hash, lambda folder: store.get_folder(prefix, folder)
        )
        self._loaded.trim(keep=frozenset([name]))
        return name
