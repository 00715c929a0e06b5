"""The calls that a process has taken and not yet moved: how many, whose, and since when."""

import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from registry.clock import utc_now
from registry.recordings.call import RecordedCall


class WaitingCalls:
    """In the order in which they were taken, which is the one in which they are moved. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._calls: deque[tuple[uuid.UUID, datetime]] = deque()
        """(project, when it was answered)."""
        self._counts: Counter[uuid.UUID] = Counter()
        self._taken = self._moved = 0
        self._moved_until = utc_now()
        self._waiting_since = 0.0

    def take(self, call: RecordedCall, write: Callable[[bytes], None]) -> None:
        """Take a call, which `write` writes. What that raises comes through, and nothing was taken then.

        Other processes may have been told meanwhile that all of before a moment is moved. A call whose answer is from
        before it, and on its way since, gets a later time.
        """
        line = call.to_line()
        with self._lock:
            if call.answered_at < self._moved_until:
                call = replace(call, answered_at=utc_now())
                line = call.to_line()
            write(line)
            if not self._calls:
                self._waiting_since = time.monotonic()
            self._calls.append((call.project_id, call.answered_at))
            self._counts[call.project_id] += 1
            self._taken += 1

    def moved(self, count: int) -> Counter[uuid.UUID]:
        """The oldest ones stand in runs, or never will. Returns how many of which projects they were."""
        with self._lock:
            projects = Counter(self._calls.popleft()[0] for _ in range(count))
            self._counts -= projects
            self._moved += count
            self._waiting_since = time.monotonic()
            self._lock.notify_all()
            return projects

    def moved_until(self) -> datetime:
        """All that was answered before is moved, and nothing of before will be taken any more."""
        with self._lock:
            # If the clock was set back, this goes back too: what is answered then is later all the same.
            self._moved_until = min((at for _, at in self._calls), default=utc_now())
            return self._moved_until

    def waiting_since(self) -> float | None:
        """Since when nothing was moved, by the monotonic clock; None if nothing waits."""
        with self._lock:
            return self._waiting_since if self._calls else None

    def count(self, project_id: uuid.UUID) -> int:
        return self._counts[project_id]

    def counts(self) -> dict[uuid.UUID, int]:
        """How many wait, by project."""
        with self._lock:
            return dict(self._counts)

    def wait(self, seconds: float) -> bool:
        """Until all is moved that was taken before. False if it took too long."""
        with self._lock:
            wanted = self._taken
            return self._lock.wait_for(lambda: self._moved >= wanted, timeout=seconds)
