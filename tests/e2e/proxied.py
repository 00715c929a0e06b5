"""Replicas as real processes behind a real proxy (Caddy), which asks each whether it is ready."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from api.local.ports import LOOPBACK, pick_free_port
from api.local.processes import log_tail, spawn, stop
from registry.settings import Settings, child_environment
from tests.e2e.forked import Forked, fork

CADDY = Path(sys.executable).with_name("caddy")
CADDYFILE = """{{
    admin off
    auto_https off
    persist_config off
}}
http://{host}:{port} {{
    bind {host}
    reverse_proxy {upstreams} {{
        lb_policy round_robin
        lb_try_duration 20s
        lb_try_interval 50ms
        health_uri /readyz
        health_interval 200ms
        health_timeout 5s
        flush_interval -1
    }}
}}
"""


def wait_for(
    condition: Callable[[], bool], status: Callable[[], int | None], log: Path, seconds: float = 240.0
) -> None:
    """Until the condition holds, of a process that must not end before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert status() is None, log_tail(log)
        assert time.monotonic() < deadline, log_tail(log)
        time.sleep(0.05)


DRAINING = ("api.server",)
ABRUPT = ("uvicorn", "api.app:create_app", "--factory", "--timeout-graceful-shutdown", "0", "--no-access-log")
"""The same application on uvicorn alone, told to wait for no answer after SIGTERM."""


@dataclass
class Replica:
    """One process of the API; started again on its port."""

    settings: Settings
    folder: Path
    program: tuple[str, ...] = DRAINING
    port: int = field(default_factory=pick_free_port)
    running: Forked | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        module, *arguments = self.program
        place = ("--host", LOOPBACK, "--port", str(self.port))
        log = self.folder / f"replica-{self.port}.log"
        environment = child_environment(self.settings)
        self.running = fork(module, (*arguments, *place), log, environment=environment, folder=self.folder)

    def wait(self) -> None:
        assert self.running is not None
        wait_for(self.is_ready, self.running.status, self.running.log)

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """Returns when it is dead."""
        assert self.running is not None
        self.running.end(signal.SIGKILL)

    def leave(self) -> int:
        """SIGTERM; returns its exit status once it has ended by itself."""
        assert self.running is not None
        status = self.running.end(signal.SIGTERM, timeout_seconds=90)
        assert status is not None, log_tail(self.running.log)
        return status

    def close(self) -> None:
        """At once: how one leaves is tested by itself."""
        if self.running is not None:
            self.kill()


@contextmanager
def run_replicas(settings: Settings, folder: Path, count: int = 2) -> Iterator[list[Replica]]:
    """Ready ones."""
    with ExitStack() as stack:
        replicas = [Replica(settings, folder) for _ in range(count)]
        for replica in replicas:
            stack.callback(replica.close)
            replica.start()
        for replica in replicas:
            replica.wait()
        yield replicas


@contextmanager
def run_proxy(replicas: list[Replica], folder: Path) -> Iterator[str]:
    """The proxy's URL, once it has found a replica ready."""
    port = pick_free_port()
    upstreams = " ".join(f"{LOOPBACK}:{replica.port}" for replica in replicas)
    file = folder / "Caddyfile"
    file.write_text(CADDYFILE.format(host=LOOPBACK, port=port, upstreams=upstreams))
    command = (CADDY, "run", "--config", file, "--adapter", "caddyfile")
    environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    child = spawn("caddy", command, folder / "caddy.log", environment=environment, folder=folder)
    url = f"http://{LOOPBACK}:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        wait_for(answers, child.process.poll, child.log)
        yield url
    finally:
        stop([child])
