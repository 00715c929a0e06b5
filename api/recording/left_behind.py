"""What dead processes of this machine have left in their spools: moved as if they had lived on.

What can't be read or moved is tried again, and holds up nothing: neither what was left beside it nor, for longer than a
recorder that nobody speaks for, the end of any run.
"""

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from api.recording.moving import CallMover, read_lines
from registry.database import transaction
from registry.recordings.ending import end_rewarded
from registry.recordings.recorders import remove_recorder, speak_for
from registry.recordings.spool import LeftSpool, abandoned, read_segment
from registry.wiring import Services

log = structlog.get_logger()

_RETRY_SECONDS = 60.0
"""Until a spool is tried again that a disk does not give back."""


class LeftCalls:
    """One thread uses it."""

    def __init__(self, services: Services, calls: CallMover, is_stopping: Callable[[], bool]) -> None:
        self._services, self._calls, self._is_stopping = services, calls, is_stopping
        self._not_before: dict[str, float] = {}
        """When a spool is tried again, by its name and the monotonic clock."""
        self._begun: dict[tuple[Path, int], float] = {}
        """When others were told that a batch of a segment is being moved."""

    def take_over(self, database_away_at: float) -> None:
        """Move what there is.

        Args:
            database_away_at: when the database was away last, by the monotonic clock: others may have stopped to wait.

        Raises:
            SQLAlchemyError: the database is away.
        """
        while not self._is_stopping():
            waits = {name for name, moment in self._not_before.items() if time.monotonic() < moment}
            with abandoned(self._services.settings.spool_dir, without=waits) as left:
                if left is None:
                    return
                self._take_over(left, database_away_at)

    def _take_over(self, left: LeftSpool, database_away_at: float) -> None:
        is_whole = True
        for path in left.segments:
            try:
                self._move(left.name, path, database_away_at)
                if self._is_stopping():
                    return
                path.unlink()
            except OSError as error:
                log.error("a dead process's answers can't be taken over", file=str(path), error=type(error).__name__)
                is_whole = False
        if not is_whole:
            self._not_before[left.name] = time.monotonic() + _RETRY_SECONDS
            return
        with transaction(self._services.sessions) as session:
            end_rewarded(session)  # while the row says from when on what was moved may have been rewarded
            remove_recorder(session, left.name)
        self._begun = {batch: at for batch, at in self._begun.items() if batch[0] not in left.segments}

    def _move(self, name: str, path: Path, database_away_at: float) -> None:
        for number, lines in enumerate(read_segment(path)):
            if self._is_stopping():
                return
            calls = read_lines(lines)
            if not calls:
                continue
            # Once for each batch: who can't get on with one must not be waited for as long as it tries.
            if self._begun.get((path, number), database_away_at) <= database_away_at:
                with transaction(self._services.sessions) as session:
                    speak_for(session, name, min(call.answered_at for call in calls))
                self._begun[path, number] = time.monotonic()
            self._calls.move(calls)
