"""vLLM's own server with the plugin, in a process of its own, as an operator starts it."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx

READY_SECONDS = 400
"""A limit for a machine that others use too; a start takes some seconds where it is alone."""


class Server:
    """Started by `with`; may be killed and started again on the same port."""

    def __init__(self, base: Path, store_url: str, home: Path, **environment: str) -> None:
        self._base, self._home = base, home
        self.artifacts = home / "artifacts"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {
            **os.environ,
            "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
            "MEMGEN_S3_URL": store_url,
            "MEMGEN_VLLM_ARTIFACTS": str(self.artifacts),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill(signal.SIGTERM)

    def start(self) -> None:
        options: dict[str, Any] = {
            "--model": self._base,
            "--served-model-name": "base",
            "--host": "127.0.0.1",
            "--port": self.port,
            "--dtype": "float32",
            "--max-model-len": 512,
            "--max-num-seqs": 32,
            "--max-loras": 4,
            "--max-cpu-loras": 8,
            "--max-lora-rank": 16,
            "--block-size": 32,
        }
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enable-lora", "--enforce-eager"]
        command += [str(part) for pair in options.items() for part in pair]
        log = (self._home / "server.log").open("ab")
        self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + READY_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"vLLM did not start: {(self._home / 'server.log').read_text()[-3000:]}")
            time.sleep(0.3)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End all of its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, number)
            self._process.wait()
            if number != signal.SIGKILL:
                # The engine's process may outlive the front for a moment; nothing is left of the group after this.
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process = None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False
