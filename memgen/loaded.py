"""The memories held ready by a process: loaded on first use, the least recently used dropped first."""

import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from memgen.artifact import load_artifact
from memgen.host import AdapterHost


class LoadedMemories:
    """Not thread-safe: one thread owns the host."""

    def __init__(self, host: AdapterHost, capacity: int) -> None:
        self.host = host
        self._capacity = capacity
        self._order: OrderedDict[str, None] = OrderedDict()

    def ensure(self, name: str, manifest_sha256: str, fetch: Callable[[Path], None]) -> str:
        """Have the memory `name` in the host, fetching its folder if need be; returns `name`.

        Raises:
            ArtifactError: the fetched folder is missing files, corrupt, or made for another base.
        """
        if name in self._order:
            self._order.move_to_end(name)
            return name
        with tempfile.TemporaryDirectory(prefix="memgen-artifact-") as folder:
            fetch(Path(folder))
            load_artifact(self.host, name, Path(folder), manifest_sha256=manifest_sha256)
        self._order[name] = None
        return name

    def trim(self, keep: frozenset[str] = frozenset()) -> None:
        """Drop what exceeds the capacity, except the names in `keep`."""
        for name in list(self._order):
            if len(self._order) <= self._capacity:
                return
            if name not in keep:
                del self._order[name]
                self.host.remove(name)
