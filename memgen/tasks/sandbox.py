"""Runs unread Python, with unit tests, in a process that can do no harm.

Each run is a fresh `python -I` (`memgen.tasks.sandbox_child`) in an empty folder, with no environment, no open files of
the caller's, and limits of time, memory, output and file size. The kernel takes from it the network, other processes
and foreign files (seccomp, Landlock, and a network namespace where allowed; no privilege is needed, root is given up).
Where one of these can't be had the run is refused, unless the caller lists it in `allow_missing`.

What this does not promise: source and tests share one interpreter, so an answer written to cheat can read the tests,
compare equal to everything, or dig its runner's token out of the call stack. It can't pass by ending early
(`sys.exit(0)`, `os._exit(0)`), by printing, or by skipping the tests. Disk use is bounded for a file, not in total.
"""

import contextlib
import importlib.util
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from memgen.errors import ConfigError, SandboxUnavailable

EndReason = Literal["passed", "failed", "ended_early", "timeout", "memory", "output", "crashed"]
TestsForm = Literal["script", "pytest"]
CHILD = Path(__file__).with_name("sandbox_child.py")
_TAIL_CHARS = 4000
_START_SECONDS = 60.0
"""A busy machine may take its time to start a process; that is no fault of the answer."""


@dataclass(frozen=True)
class Limits:
    """The most that one run may use."""

    seconds: float = 10.0
    """Wall-clock time, from the moment the process is isolated; CPU time too."""
    memory_bytes: int = 1 << 30
    """Address space."""
    file_bytes: int = 16 << 20
    """Size of any one file."""
    open_files: int = 64
    output_bytes: int = 1 << 20
    """Size of stdout and stderr together."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ConfigError(f"{name} is {value!r}; expected more than 0")


@dataclass(frozen=True)
class Isolation:
    """What the kernel granted."""

    network: bool
    """No socket reaches anyone."""
    processes: bool
    """No new process, no signal to another one."""
    files: bool
    """Readable: Python and system libraries; writable: the run's own folder."""

    @property
    def missing(self) -> frozenset[str]:
        return frozenset(name for name, granted in asdict(self).items() if not granted)


@dataclass(frozen=True)
class SandboxResult:
    reason: EndReason
    """`passed`; `failed`: a test or the source raised; `ended_early`: the process left before the tests ended."""
    output: str
    """The end of stdout and stderr."""
    isolation: Isolation
    seconds: float
    """Wall-clock time, without the start of the process."""

    @property
    def passed(self) -> bool:
        return self.reason == "passed"


def run_tests(
    source: str,
    tests: str,
    *,
    form: TestsForm = "script",
    limits: Limits | None = None,
    allow_missing: frozenset[str] = frozenset(),
    child: Path = CHILD,
) -> SandboxResult:
    """Run `source` and then `tests`.

    Args:
        form: `script` executes the tests in the source's namespace; any exception fails. `pytest` runs them by pytest,
            with the source importable as `solution`; every test has to pass, none may be skipped.
        limits: `Limits()` where None.
        allow_missing: fields of `Isolation` to do without.
        child: the script that the process runs; another one stands for a system that grants less.

    Raises:
        SandboxUnavailable: the kernel grants less isolation than asked for, or pytest is not installed.
    """
    limits = limits or Limits()
    if form not in ("script", "pytest"):
        raise ConfigError(f"form is {form!r}; expected 'script' or 'pytest'")
    if form == "pytest" and importlib.util.find_spec("pytest") is None:
        raise SandboxUnavailable("these tests need pytest; install it (`pip install pytest`) beside memgen")
    token = secrets.token_hex(32)
    job = {
        "token": token,
        "source": source,
        "tests": tests,
        "form": form,
        "required": sorted({"network", "processes", "files"} - allow_missing),
        "rlimits": _rlimits(limits),
    }
    end = _run_child(job, child, limits)
    isolation = _granted(end, child, allow_missing)
    reason = end.stopped or _reason(end.statuses[1:], token, end.returncode)
    return SandboxResult(reason, end.output, isolation, end.seconds)


@dataclass(frozen=True)
class _End:
    """How the child ended."""

    stopped: EndReason | None
    """Why it had to be stopped; None if it ended by itself."""
    seconds: float
    output: str
    statuses: list[dict[str, Any]]
    """What it wrote of itself. The first is written before the answer runs; later ones may be forged, but for the
    token."""
    returncode: int


def _run_child(job: dict[str, Any], child: Path, limits: Limits) -> _End:
    """Let a fresh process do the job in an empty folder, until it ends or passes a limit."""
    with _scratch_folder() as folder:
        reader, writer = os.pipe()
        try:
            process = _start(child, {**job, "status_pipe": writer}, folder, writer)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        with contextlib.closing(_Pipes(process, reader)) as pipes:
            stopped, seconds = pipes.drain(limits.seconds, limits.output_bytes)
    output = pipes.tail.decode(errors="replace")[-_TAIL_CHARS:]
    statuses = [_load(line) for line in pipes.status.split(b"\n") if line]
    return _End(stopped, seconds, output, statuses, process.returncode)


def _granted(end: _End, child: Path, allow_missing: frozenset[str]) -> Isolation:
    """What the kernel granted the child.

    Raises:
        SandboxUnavailable: that is less than is required, or the child did not start.
    """
    if not end.statuses or "isolation" not in end.statuses[0]:
        raise SandboxUnavailable(
            f"the sandbox's process did not start (exit {end.returncode}): {end.output[-500:]!r}; "
            f"expected a Python that runs {child.name} within {_START_SECONDS:.0f} s"
        )
    isolation = Isolation(**end.statuses[0]["isolation"])
    if refused := isolation.missing - allow_missing:
        raise SandboxUnavailable(
            f"this system does not isolate {sorted(refused)} (needs Linux 5.13 on x86-64 or arm64 with seccomp and "
            "Landlock); run where it does, or name them in allow_missing if the code can be trusted"
        )
    return isolation


@contextlib.contextmanager
def _scratch_folder() -> Iterator[str]:
    """An empty folder, removed however deep the program dug in it."""
    folder = tempfile.mkdtemp(prefix="memgen-answer-")
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            _flatten(Path(folder))
            shutil.rmtree(folder)


def _flatten(folder: Path) -> None:
    """Lift every folder below up to the top: `rmtree` goes down by recursion, and some depth has no path at all."""
    left = _folders(folder)
    while left:
        for within in _folders(left.pop()):
            left.append(within.rename(folder / secrets.token_hex(16)))


def _folders(path: Path) -> list[Path]:
    found = [entry for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink()]
    for entry in found:
        entry.chmod(0o700)  # which the program may have left without
    return found


def _rlimits(limits: Limits) -> dict[str, int]:
    return {
        "RLIMIT_CPU": int(limits.seconds) + 1,
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_CORE": 0,
    }


def _start(child: Path, job: dict[str, Any], folder: str, writer: int) -> "subprocess.Popen[bytes]":
    with tempfile.TemporaryFile() as stdin:
        stdin.write(json.dumps(job).encode())
        stdin.seek(0)
        return subprocess.Popen(  # noqa: S603  # our own interpreter and script
            [sys.executable, "-I", "-B", "-X", "utf8", str(child)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(writer,),
            cwd=folder,
            # Threads of numerical libraries would each take a share of the address space.
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )


class _Pipes:
    """Reads a process's output and status until both end; kills it on closing, whatever happened."""

    def __init__(self, process: "subprocess.Popen[bytes]", status_reader: int) -> None:
        self._process = process
        self._status_reader = status_reader
        self.status = b""
        self.tail = b""

    def drain(self, seconds: float, output_bytes: int) -> tuple[EndReason | None, float]:
        """Why the process had to be stopped, or None if it ended by itself; and how long the answer ran."""
        stdout = self._process.stdout
        if stdout is None:
            raise ConfigError("the process has no stdout; expected a pipe")
        began = time.monotonic()
        deadline, isolated, received = began + _START_SECONDS, False, 0
        with selectors.DefaultSelector() as selector:
            selector.register(stdout.fileno(), selectors.EVENT_READ)
            selector.register(self._status_reader, selectors.EVENT_READ)
            while selector.get_map():
                if time.monotonic() >= deadline:
                    return "timeout", time.monotonic() - began
                for key, _ in selector.select(deadline - time.monotonic()):
                    chunk = os.read(key.fd, 65536)
                    if not chunk:
                        selector.unregister(key.fd)
                        continue
                    received += len(chunk)
                    if received > output_bytes:
                        return "output", time.monotonic() - began
                    if key.fd == stdout.fileno():
                        self.tail = (self.tail + chunk)[-4 * _TAIL_CHARS :]
                        continue
                    self.status += chunk
                    if not isolated:
                        isolated, began = True, time.monotonic()
                        deadline = began + seconds
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return "timeout", time.monotonic() - began
        return None, time.monotonic() - began

    def close(self) -> None:
        # Without the filter there may be children; the group is theirs too, and outlives its leader.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        os.close(self._status_reader)


def _reason(statuses: list[dict[str, Any]], token: str, returncode: int) -> EndReason:
    verdicts = [status for status in statuses if "verdict" in status]
    if any(status["verdict"] == "passed" and status.get("token") == token for status in verdicts):
        return "passed"
    if returncode == -signal.SIGXCPU:
        return "timeout"
    if returncode < 0:
        return "crashed"
    if not verdicts:
        return "ended_early"
    return "memory" if verdicts[0]["verdict"] == "memory" else "failed"


def _load(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
