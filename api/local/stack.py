"""What a supervisor knows: its processes and how far it is. Starts and stops nothing."""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from api.local.apps import AppSpec
from api.local.errors import LocalStackError
from api.local.processes import Server
from api.local.state import Event, Phase, ProcessState, StackState, write_state
from api.local.watchdog import Watchdog


@dataclass(eq=False)
class Managed:
    """A process of ours, or with `launch` None a server of the user's."""

    name: str
    launch: Callable[[int | None], Server] | None
    """Takes the port that it had before; None at the first start."""
    server: Server | None = None
    """The newest one; it may be dead."""
    url: str | None = None
    port: int | None = None
    spec: AppSpec | None = None
    """None for a server."""
    state: str = "starting"
    started_at: float | None = None
    """Seconds since the epoch."""
    launched_at: float = 0.0
    """The same moment by the monotonic clock."""
    restarts: int = 0
    failures: int = 0
    """Failures in a row; a process that runs well for a while begins at 0 again."""
    down_since: float | None = None
    """Seconds since the epoch; None while it runs."""
    reason: str | None = None
    """Why it failed last: how it ended, and the end of its log."""
    retry_at: float | None = None
    """When it is launched again, by the monotonic clock; None while that isn't planned."""

    @property
    def is_needed(self) -> bool:
        """Whether the stack can't be called ready without it."""
        return self.spec is None or self.spec.needed

    @property
    def is_up(self) -> bool:
        return self.state in ("running", "external")


@dataclass
class Stack:
    """One run of a supervisor."""

    home: Path
    watchdog: Watchdog
    on_event: Callable[[Event], None]
    stop_requested: threading.Event
    started_at: float = field(default_factory=time.time)
    phase: Phase = "starting"
    api_url: str | None = None
    error: LocalStackError | None = None
    processes: list[Managed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the migrations of this start did to stored data."""
    written_at: float = 0.0
    """When its state was last written, or tried to be, by the monotonic clock."""
    is_unwritten: bool = False
    """Whether the last try failed."""


def record(stack: Stack, event: Event | None = None) -> None:
    """Writes the state for other processes, then reports the event to the caller.

    Neither may fail the stack, which goes on serving on a full disk and without a terminal.
    """
    error = stack.error
    state = StackState(
        pid=os.getpid(),
        phase=stack.phase,
        started_at=stack.started_at,
        api_url=stack.api_url,
        processes=tuple(map(_state_of, stack.processes)),
        error_class=type(error).__name__ if error else None,
        error=str(error) if error else None,
        notes=tuple(stack.notes),
    )
    stack.written_at = time.monotonic()
    try:
        write_state(stack.home, state)
        stack.is_unwritten = False
    except OSError as fault:
        if not stack.is_unwritten:
            report(stack, Event("stack", "unwritten", f"its state can't be written ({fault}); it goes on without"))
        stack.is_unwritten = True
    if event is not None:
        report(stack, event)


def report(stack: Stack, event: Event) -> None:
    """Tells the caller, whose terminal may be gone, or the disk of whose log may be full."""
    with contextlib.suppress(Exception):
        stack.on_event(event)


def _state_of(managed: Managed) -> ProcessState:
    alive = managed.server is not None and managed.state in ("starting", "running")
    return ProcessState(
        name=managed.name,
        state=managed.state,
        pid=managed.server.child.process.pid if managed.server is not None and alive else None,
        port=managed.port,
        url=managed.url,
        started_at=managed.started_at,
        restarts=managed.restarts,
        failures=managed.failures,
        down_since=managed.down_since,
        reason=managed.reason,
        retry_at=None if managed.retry_at is None else time.time() + managed.retry_at - time.monotonic(),
    )
