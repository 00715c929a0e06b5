"""The memories that a process has loaded: each on its first use, the least recently used dropped first."""

import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from memgen.artifacts.artifact import load_artifact
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory
from memgen.routing.isolated import Isolated


@dataclass(frozen=True)
class Choice:
    """The memory that answers a prompt."""

    memory: str | None
    """Its name in the host; None is the bare base."""
    task: str | None = None
    """Task that the prompt was found to belong to, where there is a memory per task."""


@dataclass(frozen=True)
class FetchedMemory:
    """A memory that is ready for the host, and not in it yet."""

    memory: Memory
    isolated: Isolated | None


class LoadedMemories:
    """One thread owns the host. Others may call `fetched`, and nothing else."""

    def __init__(self, host: AdapterHost, capacity: int, folder: Callable[[], Path | None] = lambda: None) -> None:
        """`folder` returns where artifacts are unpacked; None is the system's folder for temporary files."""
        self.host = host
        self._folder = folder
        self._capacity = capacity
        self._order: OrderedDict[str, None] = OrderedDict()
        self._isolated: dict[str, Isolated] = {}

    def ensure(self, name: str, manifest_sha256: str, fetch: Callable[[Path], None]) -> str:
        """Have the memory `name` in the host, fetching its folder if need be; returns `name`.

        A trigger that was not trained yet does not decide: memory is woven at every point, up to the budget.

        Raises:
            ArtifactError: the fetched folder is missing files, corrupt, or made for another base.
        """
        if not self.has(name):
            self.take(name, self.fetched(name, manifest_sha256, fetch))
        return name

    def has(self, name: str) -> bool:
        """Whether the memory is in the host; if so it counts as used."""
        if name not in self._order:
            return False
        self._order.move_to_end(name)
        return True

    def fetched(self, name: str, manifest_sha256: str, fetch: Callable[[Path], None]) -> FetchedMemory:
        """A memory made ready from its folder, beside the host, by any thread.

        Raises:
            ArtifactError: as `ensure`.
        """
        beside = AdapterHost(*self.host.weaver_bases)
        with tempfile.TemporaryDirectory(prefix="artifact-", dir=self._folder()) as folder:
            fetch(Path(folder))
            memory = load_artifact(beside, name, Path(folder), manifest_sha256=manifest_sha256)
            memory.weave_until_trigger_is_trained()
            return FetchedMemory(memory, Isolated.load(Path(folder), self.host.backbone))

    def take(self, name: str, fetched: FetchedMemory) -> None:
        """Put a memory into the host."""
        self.host.memories[name] = fetched.memory
        self._order[name] = None
        if fetched.isolated is not None:
            self._isolated[name] = fetched.isolated

    def isolated(self, name: str) -> Isolated | None:
        """What the memory `name`, which is in the host, knows of other tasks; None if it answers all prompts."""
        return self._isolated.get(name)

    def choose(self, name: str, state: Callable[[], Tensor], fetch_other: Callable[[str, Path], None]) -> Choice:
        """The memory that answers a prompt sent to `name`, a memory in the host: itself, unless it is of one task only.

        Args:
            state: returns the prompt's, `(H,)` (`memgen.routing.router`); called only where it decides.
            fetch_other: fills a folder with the artifact of a manifest hash.

        Raises:
            ArtifactError: raised by `ensure` for the other's artifact.
        """
        if name not in self._isolated:
            return Choice(name)
        choice = self.route(name, state())
        if choice.memory is not None and choice.memory != name:
            other = choice.memory
            self.ensure(other, other, lambda folder: fetch_other(other, folder))
        return choice

    def route(self, name: str, state: Tensor) -> Choice:
        """The memory that answers a prompt with that state, sent to `name`, which is in the host; whether the one it
        names is in the host too is not looked at. Another task's memory goes by the hash of its manifest."""
        isolated = self._isolated.get(name)
        if isolated is None:
            return Choice(name)
        [task] = isolated.choose(state[None])
        if task is None:
            return Choice(None)
        return Choice(name if task == isolated.task else isolated.others[task], task)

    def trim(self, keep: frozenset[str] = frozenset()) -> None:
        """Drop what exceeds the capacity, except the names in `keep`."""
        for name in list(self._order):
            if len(self._order) <= self._capacity:
                return
            if name not in keep:
                del self._order[name]
                self._isolated.pop(name, None)
                self.host.remove(name)
