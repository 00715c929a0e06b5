"""The base model of a worker process, loaded once and kept between jobs, with the memories that are loaded into it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from memgen.artifacts.artifact import MOMENTS_FILE
from memgen.backbone.loading import load_backbone, load_profile, named_dtype
from memgen.backbone.prompt_cache import TokenIds
from memgen.backbone.states import prompt_states
from memgen.memory.host import AdapterHost
from memgen.routing.isolated import Isolated
from memgen.routing.loaded import Choice, LoadedMemories
from registry.binding import ServedBase, bind_unbound, check_bound
from registry.database import transaction
from registry.models import Adapter, Version
from registry.versions.artifacts import artifact_beside
from registry.wiring import Services


class Model:
    def __init__(self, services: Services) -> None:
        settings = services.settings
        # A base that can't be worked with is refused before minutes go into its weights.
        load_profile(settings.base_model, cache_dir=settings.models_dir, revision=settings.base_revision)
        backbone = load_backbone(
            settings.base_model,
            cache_dir=settings.models_dir,
            revision=settings.base_revision,
            device=settings.device,
            dtype=named_dtype(settings.base_dtype),
        )
        self.host = AdapterHost(backbone)
        self.base = ServedBase(backbone.name, backbone.revision, backbone.identity.to_mapping())
        with transaction(services.sessions) as session:
            bind_unbound(session, self.base)
        self._services = services
        self._loaded = LoadedMemories(self.host, settings.cached_versions, lambda: services.scratch.folder)
        self._in_use: frozenset[str] = frozenset()
        """Memories that no other takes the place of."""

    def check_base(self, adapter: Adapter) -> None:
        """Raises BaseChanged unless the adapter is bound to this worker's base; one that isn't bound yet, is then."""
        check_bound(adapter, self.base, holder="this worker")
        if adapter.base_identity is None:  # made by a process of an earlier release since this one began
            with transaction(self._services.sessions) as session:
                bind_unbound(session, self.base)
            adapter.base_identity = dict(self.base.identity)

    def memory_of(self, version: Version) -> str:
        """The name of the version's own memory in the host, fetched and checked if it is not there yet."""
        name = self._ensure(version)
        self._trim([name])
        return name

    @contextmanager
    def keeping(self, names: Iterable[str | None]) -> Iterator[None]:
        """Within the block these memories stay in the host, whichever others come; None is the bare base."""
        before = self._in_use
        self._in_use = before | {name for name in names if name is not None}
        try:
            yield
        finally:
            self._in_use = before

    def isolated_of(self, version: Version) -> Isolated | None:
        """The version's memory of each task; None if it has one memory for all."""
        return self._loaded.isolated(self._ensure(version))

    def check_memories(self, version: Version) -> None:
        """Raises ArtifactError unless every memory that the version answers with loads here."""
        isolated = self.isolated_of(version)
        for other in isolated.others.values() if isolated else ():
            key = artifact_beside(version.artifact_key, other)
            self._loaded.ensure(other, other, lambda folder, key=key: self._fetch(key, folder))  # type: ignore[misc]  # mypy can't infer a lambda's default
            self._trim()

    def choices(self, version: Version | None, prompts: Sequence[TokenIds]) -> list[Choice]:
        """The memory that answers each prompt sent to a version, fetched and checked; for None the bare base.

        Raises:
            PromptTooLong: a prompt exceeds the model's context.
        """
        if version is None:
            return [Choice(None)] * len(prompts)
        name = self._ensure(version)
        if self._loaded.isolated(name) is None:
            found = [Choice(name)] * len(prompts)
        else:
            states = prompt_states(self.host.backbone, prompts)

            def fetch_other(artifact_hash: str, folder: Path) -> None:
                self._fetch(artifact_beside(version.artifact_key, artifact_hash), folder)

            found = [self._loaded.choose(name, lambda state=state: state, fetch_other) for state in states]  # type: ignore[misc]  # mypy can't infer a lambda's default
        self._trim([name, *(choice.memory for choice in found if choice.memory)])
        return found

    def _ensure(self, version: Version) -> str:
        return self._loaded.ensure(
            version.id.hex, version.artifact_hash, lambda folder: self._fetch(version.artifact_key, folder)
        )

    def _trim(self, keep: Iterable[str] = ()) -> None:
        self._loaded.trim(keep=self._in_use.union(keep))

    def _fetch(self, prefix: str, folder: Path) -> None:
        self._services.store.get_folder(prefix, folder, without=(MOMENTS_FILE,))
