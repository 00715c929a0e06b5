"""What a worker says of itself when somebody asks over the broker (`workers.queue.ask_workers`).

The worker's main process answers, also while its children work on jobs. It has no services and knows no row.
"""

import time
from typing import Any

from celery.worker.state import active_requests

from workers.code_version import code_version, worker_code
from workers.queue import TICK


class _Worker:
    """What this process remembers of itself, by the monotonic clock."""

    started_at = 0.0
    ticked_at: float | None = None
    """When the beat's last tick came."""


def begin(**_: Any) -> None:
    """Read the sources now: once others lie on the disk, those are not what this process and its children run."""
    _Worker.started_at = time.monotonic()
    code_version()
    worker_code()


def note_tick(request: Any, **_: Any) -> None:
    """A task has come, perhaps a tick."""
    if request.name == TICK:
        _Worker.ticked_at = time.monotonic()


def about(state: Any) -> dict[str, Any]:
    """Answers with code, queues, and the seconds since this process started and since it last saw the beat."""
    now, consumer = time.monotonic(), state.consumer.task_consumer
    ticks_now = any(request.name == TICK for request in active_requests)  # meanwhile it takes no other
    last = now if ticks_now else _Worker.ticked_at
    return {
        "code": worker_code(),
        "queues": [queue.name for queue in consumer.queues] if consumer else [],
        "seconds_up": now - _Worker.started_at,
        "seconds_since_tick": None if last is None else now - last,
    }
