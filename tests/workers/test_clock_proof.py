"""The beat's timer while the machine's clock is set forward and back."""

from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery
from celery.schedules import schedule

from workers.clock_proof import ClockProofScheduler

START = datetime(2026, 5, 4, 12, tzinfo=UTC)


class WallClock:
    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> datetime:
        return self.at


class Noting(ClockProofScheduler):
    """Notes what is due instead of sending it."""

    def setup_schedule(self) -> None:
        self.sent: list[str] = []
        self.merge_inplace(self.app.conf.beat_schedule)

    def apply_entry(self, entry: Any, producer: object = None) -> None:
        self.sent.append(entry.name)


def test_what_is_due_every_few_seconds_stays_so_whatever_the_clock_does() -> None:
    clock = WallClock()
    app = Celery("timed", broker="memory://", set_as_current=False)
    periods = {"tick": 10, "reap": 30}
    app.conf.beat_schedule = {
        name: {"task": name, "schedule": schedule(seconds, nowfun=clock, app=app)} for name, seconds in periods.items()
    }
    scheduler = Noting(app=app)

    def pass_seconds(seconds: int) -> list[str]:
        scheduler.sent.clear()
        for _ in range(seconds):
            clock.at += timedelta(seconds=1)
            while scheduler.tick() == 0:
                pass
        return sorted(scheduler.sent)

    pass_seconds(60)
    usual = ["reap", "tick", "tick", "tick"]
    assert pass_seconds(30) == usual
    clock.at += timedelta(days=1)
    pass_seconds(30)
    assert pass_seconds(30) == usual
    clock.at -= timedelta(days=1)
    assert set(pass_seconds(31)) == {"tick", "reap"}, "as if they had run when it was set back"
    assert pass_seconds(30) == usual
