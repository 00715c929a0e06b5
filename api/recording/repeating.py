"""A thread that does the same again and again, whatever fails."""

import threading
import time
import traceback
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class Repeating:
    def __init__(self, name: str, work: Callable[[], None], *, seconds: float, retry_seconds: float) -> None:
        """
        Args:
            work: done once more when it is to stop. What it raises is logged, and it is tried again.
            seconds: from one beginning to the next, unless it is woken.
        """
        self._work, self._seconds, self._retry_seconds = work, seconds, retry_seconds
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Let it work a last time, and wait so long for that. Harmless when it was never started."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            self._wake.clear()  # first: who wakes or stops it from here on has it work once more
            stopping, began = self._stopping.is_set(), time.monotonic()
            try:
                self._work()
            except Exception as error:  # the database is away, or a bug: answers go on, and what waits waits
                where = traceback.format_tb(error.__traceback__)[-3:]  # the message may hold what was to be stored
                log.error("recording waits", work=self._thread.name, error=type(error).__name__, where=where)
                self._stopping.wait(self._retry_seconds)
            if stopping:
                return
            self._wake.wait(max(0.0, began + self._seconds - time.monotonic()))
