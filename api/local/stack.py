"""What a supervisor knows: its processes and how far it is. Starts and stops nothing."""

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
    """A process of ours, or with `start` None a server of the user's."""

    name: str
    start: Callable[[], Server] | None
    server: Server | None = None
    url: str | None = None
    port: int | None = None
    spec: AppSpec | None = None
    """None for a server, which is ready when its start returns."""
    state: str = "starting"
    started_at: float | None = None
    restarts: int = 0
    quick_failures: int = 0
    retry_at: float = 0.0


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


def record(stack: Stack, event: Event | None = None) -> None:
    """Writes the state for other processes, then reports the event to the caller."""
    processes = tuple(
        ProcessState(
            name=each.name,
            state=each.state,
            pid=each.server.child.process.pid if each.server and each.state in ("starting", "running") else None,
            port=each.port,
            url=each.url,
            started_at=each.started_at,
            restarts=each.restarts,
        )
        for each in stack.processes
    )
    error = stack.error
    state = StackState(
        pid=os.getpid(),
        phase=stack.phase,
        started_at=stack.started_at,
        api_url=stack.api_url,
        processes=processes,
        error_class=type(error).__name__ if error else None,
        error=str(error) if error else None,
    )
    write_state(stack.home, state)
    if event is not None:
        stack.on_event(event)
