"""The beat's own timer, which goes on when the machine's clock is set back. Knows nothing of what is due."""

from datetime import timedelta
from typing import Any

from celery.beat import Scheduler

_SLACK = timedelta(seconds=1)


class ClockProofScheduler(Scheduler):  # type: ignore[misc]  # celery is untyped
    """Celery's timer in memory. It notes when each entry ran by the wall clock: set back by a day, it would send
    nothing for a day, and all that the beat does would wait."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        for entry in self.schedule.values():
            now = entry.default_now()
            if entry.last_run_at > now + _SLACK:
                entry.last_run_at = now
                self._heap = None  # its times are of the former clock; it is made anew
        return super().tick(*args, **kwargs)  # type: ignore[no-any-return]  # as above
