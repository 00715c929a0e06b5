"""Versions are loaded beside the model's thread: what is fetched, checked and read there delays nobody's answer.

Requests that wait for the same version share one load. What was loaded, or why it could not be, comes back through the
inbox, and is put beside the model between two steps (`memgen.routing.loaded.LoadedMemories.take`).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from memgen.routing.loaded import FetchedMemory, LoadedMemories

_THREADS = 2


@dataclass(frozen=True)
class Loaded:
    """What became of one load."""

    name: str
    outcome: FetchedMemory | Exception


class VersionLoader:
    def __init__(self, memories: LoadedMemories, deliver: Callable[[Loaded], None]) -> None:
        """`deliver` is called by a thread of the loader's."""
        self._memories, self._deliver = memories, deliver
        self._threads = ThreadPoolExecutor(_THREADS, "versions")
        self._going: set[str] = set()

    def want(self, name: str, manifest_sha256: str, fetch: Callable[[Path], None]) -> None:
        """Begin to load a version, unless it is being loaded. To be called by the model's thread."""
        if name not in self._going:
            self._going.add(name)
            self._threads.submit(self._load, name, manifest_sha256, fetch)

    def arrived(self, name: str) -> None:
        """What was delivered has been taken. To be called by the model's thread."""
        self._going.discard(name)

    def stop(self) -> None:
        """Begin no more loads. One that is under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _load(self, name: str, manifest_sha256: str, fetch: Callable[[Path], None]) -> None:
        try:
            self._deliver(Loaded(name, self._memories.fetched(name, manifest_sha256, fetch)))
        except Exception as error:  # whatever it is, those that wait for this version hear of it
            self._deliver(Loaded(name, error))
