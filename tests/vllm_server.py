"""A real vLLM server with the plugin, for tests; there is one where `make vllm` has made its environment."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from api.local.errors import ServerFailed
from api.local.ports import LOOPBACK, pick_free_port
from api.local.processes import Child, Ending, spawn, stop, wait_until_ready
from api.local.vllm_command import vllm_command, vllm_environment, vllm_python
from registry.settings import Settings, load_settings

ENGINE = os.environ.get("MEMGEN_TEST_ENGINE", "local")
"""Which engine is tried: `make test` tries `local`, `make test-vllm` tries `vllm`."""
_START_SECONDS = 900.0
"""Half a minute on an idle machine; a busy one may take ten times as long."""


def why_no_vllm() -> str | None:
    """Why there can't be one here; None if there can."""
    try:
        vllm_python(load_settings(service_env=False))
    except ServerFailed as error:
        return str(error)
    return None


@dataclass
class VllmProcess:
    settings: Settings
    base: Path
    folder: Path
    port: int
    child: Child | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Returns at once."""
        python = vllm_python(self.settings)
        environment = {
            **vllm_environment(self.settings),
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "OMP_NUM_THREADS": "1",
            "MEMGEN_VLLM_ARTIFACTS": str(self.folder / "vllm-artifacts"),
            # As the working copy says, whatever was installed.
            "PYTHONPATH": os.pathsep.join(map(str, (_ROOT, _ROOT / "packages" / "memgen-vllm" / "src"))),
        }
        command = vllm_command(self.settings, python, str(self.base), self.port)
        self.child = spawn(
            "vllm", command, self.folder / "vllm.log", environment=environment, folder=self.folder, ending=Ending()
        )

    def wait(self) -> None:
        assert self.child is not None
        wait_until_ready(self.child, lambda: httpx.get(f"{self.url}/memgen/base").is_success, _START_SECONDS)

    def kill(self) -> None:
        """Returns when all of it is dead."""
        assert self.child is not None
        stop([replace(self.child, ending=Ending(grace_seconds=0.0))])

    def running(self) -> float:
        """Answers that it makes now."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running{"))


_ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def run_vllm(settings: Settings, base: Path, folder: Path, arguments: Mapping[str, str] = {}) -> Iterator[VllmProcess]:
    """A server that answers."""
    server = VllmProcess(settings, base, folder, pick_free_port())
    try:
        server.start()
        server.wait()
        yield server
    finally:
        if server.child is not None:
            stop([server.child])
