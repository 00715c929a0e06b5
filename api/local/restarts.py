"""Processes of the stack that end: launched again for as long as it takes, each alone, while all others go on.

Nothing here stops the stack: whatever one process, its port or the disk does, is that process's failure, and it is
tried again with growing pauses. Only the first start may fail, see `supervisor.py`.
"""

import ssl
import time
from dataclasses import dataclass

import httpx

from api.local.errors import ServerFailed
from api.local.health import without_password
from api.local.processes import Child, Server, ended_message, log_tail, stop
from api.local.stack import Managed, Stack, record
from api.local.state import Event

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For questions to our own processes: to read whom TLS trusts would take longer than they do."""


@dataclass(frozen=True)
class RestartPolicy:
    """The pause after a failure doubles with each in a row; a process that ran for `well_seconds` begins anew."""

    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 60.0
    well_seconds: float = 60.0
    failures_at_first_start: int = 5
    """How often a process may fail in a row before `memgen up` fails, or goes on without it if it isn't needed."""

    def pause(self, failures: int) -> float:
        return min(self.first_pause_seconds * 2.0 ** min(failures - 1, 30), self.longest_pause_seconds)


DEFAULT_RESTARTS = RestartPolicy()


def launch(stack: Stack, managed: Managed) -> Server:
    """Launches a process of ours, which is `starting` from then on. Raises whatever keeps it from that."""
    if managed.launch is None:
        raise ServerFailed(f"{managed.name} is not ours to start.")
    if managed not in stack.processes:
        stack.processes.append(managed)
    managed.state, managed.retry_at = "starting", None
    record(stack, Event(managed.name, "starting"))
    if managed.server is not None:
        stack.watchdog.forget(managed.server.child)
    server = managed.launch(managed.port)
    stack.watchdog.watch(server.child)
    managed.server, managed.port = server, server.port
    managed.url = without_password(server.url) if server.url else None
    managed.started_at, managed.launched_at = time.time(), time.monotonic()
    return server


def note_running(stack: Stack, managed: Managed, detail: str) -> None:
    managed.state, managed.down_since = "running", None
    record(stack, Event(managed.name, "running", detail))


def look_after(stack: Stack, managed: Managed, policy: RestartPolicy) -> None:
    """One look at a process: notes that it is ready or has ended, and launches it where that is due."""
    if managed.launch is None:
        return
    try:
        if managed.state == "restarting":
            if time.monotonic() >= (managed.retry_at or 0):
                managed.restarts += 1
                launch(stack, managed)
        elif managed.server is not None:
            _look_at(stack, managed, managed.server, policy)
    except Exception as error:  # a taken port, a full disk, no more processes: it is this process's alone
        if managed.server is not None and managed.server.child.process.poll() is None:
            _end(stack, managed.server.child)
        _note_failure(stack, managed, policy, f"{type(error).__name__}: {error}")


def _look_at(stack: Stack, managed: Managed, server: Server, policy: RestartPolicy) -> None:
    child, age = server.child, time.monotonic() - managed.launched_at
    if child.process.poll() is not None:
        _end(stack, child)  # the leader is dead, its descendants may not be
        if managed.state == "starting" and server.mend():
            launch(stack, managed)
            return
        _note_failure(stack, managed, policy, ended_message(child))
    elif managed.state == "starting":
        if _is_up(managed, server, age):
            note_running(stack, managed, managed.url or "")
        elif managed.spec is None and age > server.timeout_seconds:
            _end(stack, child)
            last_lines = log_tail(child.log, child.log_start)
            _note_failure(
                stack,
                managed,
                policy,
                f"{child.name} was not ready after {age:.0f} s. Its log {child.log} ends with:\n{last_lines}",
            )
    elif managed.failures and age > policy.well_seconds:
        managed.failures, managed.reason = 0, None
        record(stack)


def _note_failure(stack: Stack, managed: Managed, policy: RestartPolicy, reason: str) -> None:
    managed.failures += 1
    pause = policy.pause(managed.failures)
    managed.state, managed.reason = "restarting", reason
    managed.down_since = managed.down_since or time.time()
    managed.retry_at = time.monotonic() + pause
    first_line = reason.partition("\n")[0]
    record(stack, Event(managed.name, "restarting", f"{first_line} Again in {pause:g} s"))


def _end(stack: Stack, child: Child) -> None:
    stop([child])
    stack.watchdog.forget(child)


def _is_up(managed: Managed, server: Server, age: float) -> bool:
    if managed.spec is None:
        return _answers(server)
    if managed.spec.ready_url is None:
        return age >= managed.spec.settle_seconds
    try:
        reply = httpx.get(managed.spec.ready_url, timeout=2.0, trust_env=False, verify=_NO_TLS)
        return reply.status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _answers(server: Server) -> bool:
    try:
        return server.is_ready()
    except ServerFailed:  # waiting will not help
        raise
    except Exception:
        return False
