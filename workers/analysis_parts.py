"""Finished parts of an analysis: a folder each, here and in the object store, so that any worker goes on behind them.

This module knows nothing of what a part holds. The parts of a job stand where a deletion looks for what follows from
held-out trajectories (`registry.versions.analyses`), and are gone when the job has ended well.
"""

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from registry.errors import ObjectNotFound
from registry.versions.analyses import analysis_folder
from workers.runner import Running

_WHOLE = "whole"
"""Object that is stored behind all files of a part."""


class AnalysisParts:
    def __init__(self, running: Running, project_id: uuid.UUID, folder: Path) -> None:
        """`folder` is a local one, empty."""
        self._running, self._folder = running, folder
        self._key = analysis_folder(project_id, str(running.job_id))

    def part(self, name: str, make: Callable[[Path], None]) -> Path:
        """The local folder of a part: fetched if an earlier attempt has finished it, else filled by `make`."""
        self._running.check()
        store, key, folder = self._running.services.store, f"{self._key}/{name}", self._folder / name
        folder.mkdir(parents=True)
        try:
            store.get(f"{key}/{_WHOLE}")
            store.get_folder(key, folder, without=(_WHOLE,))
        except ObjectNotFound:
            shutil.rmtree(folder)
            folder.mkdir()
        else:
            self._running.event(f"{name}: found by an earlier attempt")
            return folder
        make(folder)
        store.put_folder(key, folder)
        store.put(f"{key}/{_WHOLE}", b"whole")
        return folder

    def clear(self) -> None:
        """Forget all parts, here and in the store."""
        self._running.services.store.delete_folder(self._key)
        shutil.rmtree(self._folder)
        self._folder.mkdir()
