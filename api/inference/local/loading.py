"""Versions are loaded beside the model's thread: what is fetched, checked and read there delays nobody's answer.

Requests that wait for the same version share one load. What was loaded, or why it could not be, comes back through the
inbox, and is put beside the model between two steps (`memgen.routing.loaded.LoadedMemories.take`). A store that does
not answer holds up the versions that come from it, and neither other loads nor the end of the process.
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from memgen.routing.loaded import FetchedMemory, LoadedMemories

_FETCHED = 32
"""Versions that are fetched at once."""
_MADE = 2
"""Versions that are checked and read at once; the model's thread shares the processor with them."""


@dataclass(frozen=True)
class Loaded:
    """What became of one load."""

    name: str
    outcome: FetchedMemory | Exception


class VersionLoader:
    def __init__(self, memories: LoadedMemories, deliver: Callable[[Loaded], None]) -> None:
        """`deliver` is called by a thread of the loader's."""
        self._memories, self._deliver = memories, deliver
        self._fetching, self._making = threading.Semaphore(_FETCHED), threading.Semaphore(_MADE)
        self._stopped = threading.Event()
        self._going: set[str] = set()

    def want(self, name: str, manifest_sha256: str, fetch: Callable[[Path], None]) -> None:
        """Begin to load a version, unless it is being loaded. To be called by the model's thread.

        Raises:
            RuntimeError: no thread can be started; the next call tries again.
        """
        if name not in self._going:
            load = threading.Thread(target=self._load, args=(name, manifest_sha256, fetch), name=f"version {name}")
            load.daemon = True
            load.start()  # it raises where the system has no thread left
            self._going.add(name)

    def arrived(self, name: str) -> None:
        """What was delivered has been taken. To be called by the model's thread."""
        self._going.discard(name)

    def stop(self) -> None:
        """Begin no more loads. One that is under way ends by itself, or with the process."""
        self._stopped.set()

    def _load(self, name: str, manifest_sha256: str, fetch: Callable[[Path], None]) -> None:
        with ExitStack() as made:

            def fetch_then_wait(folder: Path) -> None:
                with self._fetching:
                    if self._stopped.is_set():
                        raise InterruptedError("the engine was stopped before the version was fetched")
                    fetch(folder)
                made.enter_context(self._making)

            try:
                self._deliver(Loaded(name, self._memories.fetched(name, manifest_sha256, fetch_then_wait)))
            except Exception as error:  # whatever it is, those that wait for this version hear of it
                self._deliver(Loaded(name, error))
