"""A job's training state, kept in the object store so that any worker can take the job up."""

from pathlib import Path

from registry.errors import ObjectNotFound
from workers.runner import Running


class Checkpoint:
    """The file that a training saves to and goes on from."""

    def __init__(self, running: Running, path: Path) -> None:
        """Fetch the state that an earlier attempt left, if there is one, to `path`."""
        self._running = running
        self._key = f"jobs/{running.job_id}/checkpoint.safetensors"
        self.path = path
        try:
            running.services.store.get_file(self._key, path)
            running.event("continuing from the checkpoint of an earlier attempt")
        except ObjectNotFound:
            pass

    def upload(self, path: Path) -> None:
        self._running.services.store.put_file(self._key, path)

    def delete(self) -> None:
        self._running.services.store.delete(self._key)
