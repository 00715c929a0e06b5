"""Modules run as programs, in processes that need not import the service: each is forked from one that has.

What a new interpreter reads first, most of it torch, takes longer than all that a replica then does in a test.
"""

import ctypes
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["api.app", "uvicorn"])
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Forked:
    process: BaseProcess
    log: Path

    def status(self) -> int | None:
        """How it ended: its exit status, or minus the signal; None while it runs."""
        return self.process.exitcode

    def end(self, number: signal.Signals, timeout_seconds: float | None = None) -> int | None:
        """Sends the signal; its status once it has ended, None where it has not within the time."""
        if self.status() is None:
            assert self.process.pid is not None
            os.kill(self.process.pid, number)
        self.process.join(timeout_seconds)
        return self.status()


def fork(module: str, arguments: Sequence[str], log: Path, *, environment: Mapping[str, str], folder: Path) -> Forked:
    """`python -m module arguments` in `folder`, with this environment and no other; its output is appended to `log`."""
    process = _FORKS.Process(target=_run, args=(module, list(arguments), log, dict(environment), folder))
    process.start()
    return Forked(process, log)


def _run(module: str, arguments: list[str], log: Path, environment: dict[str, str], folder: Path) -> None:
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
