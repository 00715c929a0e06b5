"""Ends what a killed supervisor leaves behind. Run by the supervisor as `python -m api.local.watchdog`.

PR_SET_PDEATHSIG reaches direct children only, and only on Linux: Celery's pool processes would train on. So
the supervisor tells this process over a pipe which sessions it has opened (`+ pid signal`) and closed (`-
pid`). When the pipe ends with sessions open, they get their stop signal, and are killed after a grace.

It inherits the home's lock, so that no new supervisor starts before the old one's processes are gone. It
imports nothing beyond the standard library, and knows no server.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from api.local.processes import Child, is_alive, kill_session, send_signal

GRACE_SECONDS = 6.0


@dataclass(frozen=True)
class Watchdog:
    """The supervisor's end of the pipe."""

    pipe: IO[bytes]

    def watch(self, child: Child) -> None:
        self._send(f"+ {child.process.pid} {int(child.ending.stop_signal)}")

    def forget(self, child: Child) -> None:
        self._send(f"- {child.process.pid}")

    def _send(self, line: str) -> None:
        # The watchdog was killed: the stack runs on with PR_SET_PDEATHSIG alone.
        with contextlib.suppress(OSError):
            self.pipe.write(f"{line}\n".encode())
            self.pipe.flush()


@contextlib.contextmanager
def start_watchdog(lock_descriptor: int, log: Path) -> Iterator[Watchdog]:
    """Runs a watchdog that shares the lock behind `lock_descriptor` for as long as the block lasts."""
    reading, writing = os.pipe()
    pipe = os.fdopen(writing, "wb")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "api.local.watchdog"],
            stdin=reading,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=[lock_descriptor],
        )
    os.close(reading)
    try:
        yield Watchdog(pipe)
    finally:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
        process.wait()


def read_sessions(lines: Iterable[str]) -> dict[int, int]:
    """Sessions still open at the end of the pipe: leader's pid to stop signal."""
    sessions: dict[int, int] = {}
    for line in lines:
        match line.split():
            case ["+", pid, number]:
                sessions[int(pid)] = int(number)
            case ["-", pid]:
                sessions.pop(int(pid), None)
    return sessions


def end_sessions(sessions: dict[int, int], grace_seconds: float = GRACE_SECONDS) -> None:
    for leader, number in reversed(sessions.items()):
        send_signal(leader, number)
    deadline = time.monotonic() + grace_seconds
    waiting = list(sessions)
    while waiting:
        for leader in list(waiting):
            # Without its leader the rest of a session has no reason to wait.
            if not is_alive(leader) or time.monotonic() > deadline:
                kill_session(leader)
                waiting.remove(leader)
        time.sleep(0.1)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with the pipe, never before
    end_sessions(read_sessions(sys.stdin))


if __name__ == "__main__":
    main()
