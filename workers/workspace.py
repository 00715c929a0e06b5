"""Where a job trains: a memory of its own in the model's host and a temporary folder, both gone afterwards.

Knows nothing of methods: what is written into the folder of the artifact is theirs and `workers.registration`'s.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from memgen.config import MemoryConfig
from registry.models import Version
from workers.model import Model
from workers.runner import Running


@dataclass(frozen=True)
class Workspace:
    memory: str
    """Name, in the model's host, of the memory that is trained."""
    folder: Path

    @property
    def artifact(self) -> Path:
        """Folder of what the version will consist of."""
        return self.folder / "artifact"

    @property
    def checkpoint(self) -> Path:
        """File of the training's state."""
        return self.folder / "checkpoint.safetensors"


@contextmanager
def open_workspace(
    running: Running, model: Model, memory: MemoryConfig, *, seed: int, start: Version | None
) -> Iterator[Workspace]:
    """A workspace whose memory has the weights of `start`, which has the same config; without it, fresh ones that
    follow from the seed."""
    with tempfile.TemporaryDirectory(prefix=f"job-{running.job_id}-", dir=running.services.scratch.folder) as folder:
        workspace = Workspace(f"job_{running.job_id.hex}", Path(folder))
        workspace.artifact.mkdir()
        model.host.create(workspace.memory, memory, seed=seed)
        try:
            if start is not None:
                model.host.copy(model.memory_of(start), workspace.memory)
            yield workspace
        finally:
            model.host.remove(workspace.memory)
