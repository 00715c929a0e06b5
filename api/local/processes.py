"""Child processes of the local stack: spawned, awaited, stopped with all their descendants. Knows no server by name.

Every child leads a session of its own: a terminal's Ctrl-C does not reach it, and its descendants are found
by that session. On Linux it also gets its stop signal from the kernel when its parent dies
(PR_SET_PDEATHSIG); the kernel takes the spawning *thread* for the parent, so spawn from the main one.
Elsewhere `watchdog.py` alone sees to that.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from api.local.errors import LocalStackError, ServerFailed

_PR_SET_PDEATHSIG = 1
_LARGEST_LOG_BYTES = 20_000_000
_TAIL_BYTES = 3_000
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Ending:
    """How a child is made to end: by a signal, and killed where it still runs after its grace."""

    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 5.0
    death_signal: signal.Signals | None = None
    """What it gets when this process dies (Linux); by default `stop_signal`."""


@dataclass(frozen=True)
class Child:
    """A spawned process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    ending: Ending
    log_start: int = 0
    """Where in the log its own lines begin."""


@dataclass(frozen=True)
class Server:
    """A server that answers at `url` (which carries its password). `port` is None on a unix socket."""

    child: Child
    url: str
    port: int | None = None
    is_ready: Callable[[], bool] = lambda: True
    """As `wait_until_ready` takes it."""
    timeout_seconds: float = 30.0
    """How long it may take to be ready."""
    mend: Callable[[], bool] = lambda: False
    """For a server that ended before it was ready: moves aside what it can't read and can do without. Returns
    whether it did, so that another start is worth while."""


def spawn(
    name: str,
    command: Sequence[str | Path],
    log: Path,
    *,
    environment: Mapping[str, str],
    folder: Path,
    ending: Ending = Ending(),
    uid: int | None = None,
) -> Child:
    """Starts `command` in `folder`, its output appended to `log`; as `uid` (with an equal group) where given.

    Where the log can't be opened, as on a full disk, it runs without one.
    """
    with contextlib.suppress(OSError):
        if log.stat().st_size > _LARGEST_LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))
    with _open_log(log) as output:
        log_start = output.seek(0, os.SEEK_END) if output.seekable() else 0
        process = subprocess.Popen(  # noqa: S603  # our own command, no shell
            [str(argument) for argument in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=_die_with_parent(ending.death_signal or ending.stop_signal),
            **as_account(uid),
        )
    return Child(name, process, log, ending, log_start)


def _open_log(log: Path) -> IO[bytes]:
    try:
        return log.open("ab")
    except OSError:
        return Path(os.devnull).open("ab")


def as_account(uid: int | None) -> dict[str, Any]:
    """Arguments of `subprocess` that run a child as `uid` with no group of ours; none for None."""
    return {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}


def _die_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()  # loaded here: after fork only the call itself is safe

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return ask_kernel


def log_tail(log: Path, start: int = 0) -> str:
    """The end of a log, at most 3,000 bytes of what was written from offset `start` on."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace").strip() or "(empty)"
    except OSError:
        return "(no log)"


def wait_until_ready(child: Child, is_ready: Callable[[], bool], timeout_seconds: float = 30.0) -> None:
    """Returns once `is_ready()`; any exception of it means "not yet", save a LocalStackError, which passes through.

    Raises ServerFailed with the log's tail if the child ends or time runs out; the child is stopped first.
    """
    deadline = time.monotonic() + timeout_seconds
    last: object = "no answer"
    try:
        while True:
            if child.process.poll() is not None:
                raise ServerFailed(ended_message(child))
            try:
                if is_ready():
                    return
            except LocalStackError:
                raise
            except Exception as error:
                last = error
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"{child.name} was not ready after {timeout_seconds:.0f} s ({last}). "
                    f"Its log {child.log} ends with:\n{log_tail(child.log, child.log_start)}"
                )
            time.sleep(_POLL_SECONDS)
    except BaseException:
        stop([child])
        raise


def start_server(launch: Callable[[], Server]) -> Server:
    """Launches a server and returns once it is ready; launched again if it had to be mended. Raises ServerFailed."""
    server = launch()
    try:
        wait_until_ready(server.child, server.is_ready, server.timeout_seconds)
    except ServerFailed:
        if not server.mend():
            raise
        server = launch()
        wait_until_ready(server.child, server.is_ready, server.timeout_seconds)
    return server


def ended_message(child: Child) -> str:
    return (
        f"{child.name} ended with exit status {child.process.poll()}. "
        f"Its log {child.log} ends with:\n{log_tail(child.log, child.log_start)}"
    )


def stop(children: Sequence[Child]) -> None:
    """Sends all of them their stop signal in order; after its grace each is killed with its descendants."""
    started = time.monotonic()
    for child in children:
        if child.process.poll() is None:
            child.process.send_signal(child.ending.stop_signal)
    for child in children:
        try:
            child.process.wait(max(0.0, started + child.ending.grace_seconds - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
        kill_session(child.process.pid)
        child.process.wait()


def kill_session(leader: int, timeout_seconds: float = 5.0) -> None:
    """SIGKILL to every process of the session that `leader` opened, until none is left."""
    deadline = time.monotonic() + timeout_seconds
    while members := session_members(leader):
        for pid in members:
            send_signal(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return  # stuck in the kernel; nothing more can be done from here
        time.sleep(_POLL_SECONDS)


def session_members(leader: int) -> list[int]:
    """Living processes of the session that `leader` opened; the leader alone where there is no /proc."""
    if not Path("/proc/self/stat").exists():
        return [leader] if is_alive(leader) else []
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if (found := _stat(pid)) and found[0] not in "ZX" and found[1] == leader]


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie, which a container's first process may never reap, does not."""
    if Path("/proc/self/stat").exists():
        found = _stat(pid)
        return found is not None and found[0] not in "ZX"
    return send_signal(pid, 0)


def send_signal(pid: int, number: int) -> bool:
    """Whether there was such a process to signal."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and session id, or None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, _parent, _group, session = text.rpartition(")")[2].split()[:4]  # the name before it may hold anything
    return state, int(session)
