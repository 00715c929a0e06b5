"""From a spool into the database: lines are read, recorded, and counted by what became of them."""

import uuid
from collections import Counter
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy.exc import IntegrityError

from registry.database import may_pass, transaction
from registry.recordings.call import RecordedCall
from registry.recordings.counts import add_counts
from registry.recordings.joining import AGAIN, record_calls
from registry.wiring import Services

log = structlog.get_logger()

UNREADABLE = "unreadable"
MOST_AT_ONCE = 100
"""Calls of one transaction. Each of their scopes is locked by it, and others' rewards wait for it."""

Count = Callable[[uuid.UUID, str], None]
"""Takes (project, why it is not recorded) of an answer."""


class CallMover:
    """Any thread may move with it."""

    def __init__(self, services: Services, count: Count) -> None:
        self._services, self._count = services, count

    def move(self, calls: Sequence[RecordedCall]) -> None:
        """When it returns, each call stands in the database or never will.

        Raises:
            SQLAlchemyError: the database is away; some of them may have been moved.
        """
        projects: dict[uuid.UUID, list[RecordedCall]] = {}
        for call in calls:
            projects.setdefault(call.project_id, []).append(call)
        for mine in projects.values():
            for start in range(0, len(mine), MOST_AT_ONCE):
                self._record(mine[start : start + MOST_AT_ONCE])

    def _record(self, calls: Sequence[RecordedCall], *, is_again: bool = False) -> None:
        """In one transaction; where one of them can't be stored, the halves by themselves."""
        try:
            with transaction(self._services.sessions) as session:
                joined = record_calls(session, calls, most_bytes=self._services.settings.max_trajectory_bytes)
                counts = Counter((calls[0].project_id, each.outcome) for each in joined if each.outcome != AGAIN)
                add_counts(session, counts)  # with what it counts: a kill loses neither
        except Exception as error:  # one call's trouble is never the others'
            if may_pass(error):
                raise
            if len(calls) > 1:
                self._record(calls[: len(calls) // 2])
                self._record(calls[len(calls) // 2 :])
                return
            if isinstance(error, IntegrityError) and not is_again:  # another was quicker: what it wrote is seen now
                self._record(calls, is_again=True)
                return
            # Not its message: that holds what was to be stored.
            log.error("an answer could not be recorded", completion=calls[0].completion_id, error=type(error).__name__)
            self._count(calls[0].project_id, UNREADABLE)


def read_lines(lines: Sequence[bytes]) -> list[RecordedCall]:
    """The calls of lines, without those that can't be read."""
    calls = []
    for line in lines:
        try:
            calls.append(RecordedCall.from_line(line))
        except (ValueError, KeyError, TypeError, RecursionError):
            log.error("a line of the spool is unreadable", length=len(line))
    return calls
