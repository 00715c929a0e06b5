"""`memgen up`, `down` and `status` as functions: they start, stop and look at a supervisor. They render nothing.

Settings come from `load_settings(service_env=False)`, see `servers.py`.
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from api.local import errors
from api.local.errors import LocalStackError, NotRunning, ServerFailed
from api.local.files import make_home
from api.local.processes import is_alive, log_tail, send_signal
from api.local.state import Event, ProcessState, StackState, is_locked, lock_owner, read_state
from api.local.supervisor import ignore_event, prepare_nothing, run_supervisor
from registry.settings import SERVICE_ENV, Settings, child_environment

_POLL_SECONDS = 0.1
_START_SECONDS = {"local": 300.0, "vllm": 1200.0}
"""How long the stack may take to be ready, by its engine: vLLM loads large bases, and compiles."""
SUPERVISOR = (sys.executable, "-m", "api.local.supervisor")


@dataclass(frozen=True)
class UpResult:
    already_running: bool
    home: Path
    pid: int
    api_url: str
    urls: dict[str, str]
    """Server's name to its URL, without passwords."""
    service_env: Path
    """Where the passwords and the API key are."""
    seconds: float
    down: dict[str, str]
    """Processes that could not be started and are tried again, by name: why."""
    notes: tuple[str, ...]
    """What the migrations of its start did to stored data."""


def up(
    settings: Settings,
    *,
    foreground: bool = False,
    on_event: Callable[[Event], None] = ignore_event,
    prepare: Callable[[Settings], None] = prepare_nothing,
    command: Sequence[str] = SUPERVISOR,
    timeout_seconds: float | None = None,
) -> UpResult:
    """Starts the stack and returns once the API is ready; in the foreground, once it has been stopped again.

    `command` is the detached supervisor: a program that calls `run_supervisor` (the CLI passes its own
    foreground form). `prepare` serves the foreground. A stack that already runs is waited for and returned.
    Raises the supervisor's own LocalStackError, or ServerFailed with the tail of its log.
    """
    if timeout_seconds is None:
        timeout_seconds = _START_SECONDS[settings.engine]
    began = time.monotonic()
    home = make_home(settings.home)
    if foreground:
        run_supervisor(settings, prepare=prepare, on_event=on_event)
        return _result(home, _state_or_fail(home), already_running=False, began=began)
    pid = _owner_that_stays(home, began + timeout_seconds)
    already_running = pid is not None
    log = home / "logs" / "supervisor.log"
    offset = log.stat().st_size if log.exists() else 0
    if pid is None:
        pid = _detach(settings, home, log, command)
    try:
        state = _wait_until_ready(home, pid, on_event, lambda: log_tail(log, offset), began + timeout_seconds)
    except LocalStackError:
        other = _owner_that_stays(home, began + timeout_seconds)
        if other is None or other == pid:
            raise
        # Somebody else started one at the same moment, and was quicker.
        already_running = True
        state = _wait_until_ready(home, other, on_event, lambda: log_tail(log, offset), began + timeout_seconds)
    return _result(home, state, already_running=already_running, began=began)


def down(settings: Settings, *, timeout_seconds: float | None = None) -> bool:
    """Stops the stack and returns when nothing of it is left; False if nothing ran.

    Raises ServerFailed if even killing it does not end it.

    Args:
        timeout_seconds: when it is killed; None allows what the settings let the API take to end its answers.
    """
    if timeout_seconds is None:
        timeout_seconds = 45.0 + settings.drain_notice_seconds + settings.drain_seconds
    home = settings.home.expanduser().absolute()
    if not is_locked(home):
        return False
    pid = lock_owner(home)  # None: only a dead supervisor's watchdog is there, about to end by itself
    for number, seconds in ((signal.SIGTERM, timeout_seconds), (signal.SIGKILL, 20.0)):
        if pid is not None and lock_owner(home) == pid:
            send_signal(pid, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not is_locked(home) and (pid is None or not is_alive(pid)):
                return True
            time.sleep(_POLL_SECONDS)
    raise ServerFailed(f"The stack in {home} (supervisor pid {lock_owner(home)}) does not end. Look at {home}/logs.")


def status(settings: Settings) -> dict[str, object]:
    """What runs: `running`, `phase`, `home`, `pid`, `api_url`, `uptime_seconds`, `error`, and `processes`,
    each with `name`, `pid`, `state`, `port`, `url`, `uptime_seconds`, `restarts`, `log`, and, of one that is down,
    `down_since`, `reason`, `failures` (in a row) and `next_try_at`. Works also when nothing runs."""
    home = settings.home.expanduser().absolute()
    pid, state = lock_owner(home), read_state(home)
    failed = state is not None and state.phase == "failed"
    if state is not None and pid is not None and state.pid != pid:
        state = None  # of a stack before this one
    running = pid is not None
    return {
        "running": running,
        "phase": _phase(state) if running else "failed" if failed else "stopped",
        "home": str(home),
        "pid": pid,
        "api_url": state.api_url if running and state else None,
        "uptime_seconds": round(time.time() - state.started_at, 1) if running and state else None,
        "error": state.error if state else None,
        "processes": [_process(home, each) for each in state.processes] if running and state else [],
    }


def require_running(settings: Settings) -> None:
    """Raises NotRunning, for commands that make no sense without a stack."""
    home = settings.home.expanduser().absolute()
    if lock_owner(home) is None:
        raise NotRunning(f"No stack runs in {home}. Start it with `memgen up`, or set MEMGEN_HOME to where it runs.")


def _process(home: Path, process: ProcessState) -> dict[str, object]:
    living = process.pid is not None and is_alive(process.pid)
    died = process.pid is not None and not living  # the supervisor has not noticed yet
    uptime = time.time() - process.started_at if living and process.started_at else None
    return {
        "name": process.name,
        "pid": process.pid if living else None,
        "state": "died" if died else process.state,
        "port": process.port,
        "url": process.url,
        "uptime_seconds": None if uptime is None else round(uptime, 1),
        "restarts": process.restarts,
        "log": None if process.state == "external" else str(home / "logs" / f"{process.name}.log"),
        "down_since": _time(process.down_since),
        "reason": process.reason,
        "failures": process.failures,
        "next_try_at": _time(process.retry_at),
    }


def _phase(state: StackState | None) -> str:
    """Its phase; a stack that has not written its state yet, or can't, is only known to run."""
    return state.phase if state else "starting"


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _owner_that_stays(home: Path, deadline: float) -> int | None:
    """Pid of the supervisor, or None; one that is about to stop is waited for."""
    while (pid := lock_owner(home)) is not None and time.monotonic() < deadline:
        state = read_state(home)
        if state is None or state.pid != pid or state.phase in ("starting", "ready"):
            break
        time.sleep(_POLL_SECONDS)
    return pid


def _detach(settings: Settings, home: Path, log: Path, command: Sequence[str]) -> int:
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603  # our own command, no shell
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=child_environment(settings),
            start_new_session=True,
        )
    # Reaps it should it end while we live; we do not wait for it.
    threading.Thread(target=process.wait, daemon=True).start()
    return process.pid


def _wait_until_ready(
    home: Path, pid: int, on_event: Callable[[Event], None], tail: Callable[[], str], deadline: float
) -> StackState:
    seen: set[Event] = set()
    while True:
        living = is_alive(pid)  # read first: what a dead one wrote last is then all there is
        state = read_state(home)
        if state is not None and state.pid == pid:
            for event in _events(state):
                if event not in seen:
                    seen.add(event)
                    on_event(event)
            if state.phase == "ready":
                return state
        if not living:
            raise _failure(state if state is not None and state.pid == pid else None, tail())
        if time.monotonic() > deadline:
            raise ServerFailed(
                f"The stack in {home} is not ready yet: {_unready(state)}. It is still trying; see "
                f"`memgen status` and {home}/logs, or stop it with `memgen down`."
            )
        time.sleep(_POLL_SECONDS)


def _events(state: StackState) -> list[Event]:
    return [Event(each.name, each.state, each.url or "") for each in state.processes] + [Event("stack", state.phase)]


def _unready(state: StackState | None) -> str:
    waiting = [each.name for each in state.processes if each.state not in ("running", "external")] if state else []
    return ", ".join(waiting) or "starting"


def _failure(state: StackState | None, tail: str) -> LocalStackError:
    """The supervisor's own error, by its class's name; without one, the end of its log."""
    if state is None or state.error is None:
        return ServerFailed(
            f"The supervisor ended before the stack was ready. Its log ends with:\n{tail}\n"
            "Where that says nothing, look whether the disk of MEMGEN_HOME is full."
        )
    kind = getattr(errors, state.error_class or "", LocalStackError)
    return kind(state.error) if issubclass(kind, LocalStackError) else LocalStackError(state.error)


def _state_or_fail(home: Path) -> StackState:
    state = read_state(home)
    if state is None:
        raise ServerFailed(f"{home}/run/state.json is missing or damaged; expected the supervisor's state.")
    return state


def _result(home: Path, state: StackState, *, already_running: bool, began: float) -> UpResult:
    return UpResult(
        already_running=already_running,
        home=home,
        pid=state.pid,
        api_url=state.api_url or "",
        urls={each.name: each.url for each in state.processes if each.url},
        service_env=home / SERVICE_ENV,
        seconds=time.monotonic() - began,
        down={each.name: each.reason for each in state.processes if each.down_since is not None and each.reason},
        notes=state.notes,
    )
