"""What runs in a home: its lock, and `run/state.json`, written by the supervisor and read by all others.

The lock is the truth about *whether* a stack runs: the kernel drops it when the last process holding it is
gone. The file only tells what runs. Knows no server.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from api.local.errors import AlreadyRunning
from api.local.files import write_private
from api.local.processes import is_alive

Phase = Literal["starting", "ready", "stopping", "stopped", "failed"]

# As long as a watchdog may need to end what a killed supervisor left.
_LOCK_WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class ProcessState:
    """`state`: starting, running, restarting (down until it is tried again), stopped, or external (the user's own
    server, at `url`)."""

    name: str
    state: str
    pid: int | None = None
    port: int | None = None
    url: str | None = None
    """Without its password."""
    started_at: float | None = None
    """Seconds since the epoch."""
    restarts: int = 0
    failures: int = 0
    """Failures in a row."""
    down_since: float | None = None
    """Seconds since the epoch; None while it runs."""
    reason: str | None = None
    """Why it failed last, with the end of its log."""
    retry_at: float | None = None
    """Seconds since the epoch."""


@dataclass(frozen=True)
class StackState:
    pid: int
    phase: Phase
    started_at: float
    api_url: str | None = None
    processes: tuple[ProcessState, ...] = ()
    error_class: str | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()
    """What the migrations of its start did to stored data."""


_STORED = TypeAdapter(StackState)


@dataclass(frozen=True)
class Event:
    """A change of state that the person in front of `memgen up` may want to see."""

    name: str
    state: str
    detail: str = field(default="")


def write_state(home: Path, state: StackState) -> None:
    write_private(home / "run" / "state.json", json.dumps(asdict(state), indent=2) + "\n")


def read_state(home: Path) -> StackState | None:
    """The last state written, or None. Its stack may be long gone: `lock_owner` says whether it lives."""
    try:
        return _STORED.validate_json((home / "run" / "state.json").read_bytes())
    except (OSError, ValueError):
        return None


def is_locked(home: Path) -> bool:
    """Whether a supervisor, or the watchdog of a killed one, is still there."""
    try:
        descriptor = os.open(home / "run" / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def lock_owner(home: Path) -> int | None:
    """Pid of the living supervisor of this home, or None."""
    if not is_locked(home):
        return None
    state = read_state(home)  # where the lock's own text was damaged, or found no room on the disk
    for pid in (_pid_in(home / "run" / "lock"), state.pid if state else None):
        if pid is not None and is_alive(pid):
            return pid
    return None


def left_processes(home: Path) -> list[ProcessState]:
    """Processes of a killed stack that run on although nobody looks after them; none while somebody does.

    A pid may belong to another program by now, so the process has to name the home, where there is /proc to see it.
    """
    state = None if is_locked(home) else read_state(home)
    return [each for each in state.processes if each.pid is not None and _is_of(home, each.pid)] if state else []


def _is_of(home: Path, pid: int) -> bool:
    entry = Path(f"/proc/{pid}")
    try:
        named = (entry / "cmdline").read_bytes() + os.fsencode((entry / "cwd").readlink())
    except OSError:  # it has ended, or is somebody else's
        return False
    return is_alive(pid) and os.fsencode(home) in named


@contextmanager
def hold_lock(home: Path) -> Iterator[int]:
    """Holds the home for this process and yields the lock's descriptor, which a watchdog may inherit.

    Raises AlreadyRunning if a living supervisor has it; waits where only the remains of a dead one do.
    """
    path = home / "run" / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_WAIT_SECONDS
        while not _try_lock(descriptor):
            pid = _pid_in(path)
            if (pid is not None and is_alive(pid)) or time.monotonic() > deadline:
                raise AlreadyRunning(
                    f"A stack already runs in {home} (supervisor pid {pid}). "
                    "Use it, stop it with `memgen down`, or set MEMGEN_HOME to another folder."
                )
            time.sleep(0.1)
        # Without a truncation before, so that a full disk, too, has room for it.
        os.pwrite(descriptor, f"{os.getpid()}\n".encode().ljust(12), 0)
        os.ftruncate(descriptor, 12)
        yield descriptor
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
