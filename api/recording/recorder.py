"""The recorder of one process: takes calls at the cost of a write to a file, and moves them into the database behind
the answers' backs.

A call that was taken is not lost with the process (`registry.recordings.spool`). What can't be taken is counted by its
reason; so is what a policy keeps out.

Three threads, so that none waits for another: one moves what was taken; one says once a second how far that is, and
counts (`registry.recordings.recorders`); one takes over what dead processes have left, and ends runs.
"""

import math
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.recording.announced import AnnouncedRuns
from api.recording.left_behind import LeftCalls
from api.recording.moving import CallMover, read_lines
from api.recording.repeating import Repeating
from api.recording.waiting import WaitingCalls
from registry.clock import utc_now
from registry.database import reading, transaction
from registry.recordings.call import RecordedCall
from registry.recordings.closing import bring_back, close_due, due_projects
from registry.recordings.counts import add_counts
from registry.recordings.ending import end_rewarded
from registry.recordings.open_points import OpenPoint, RunKind, find_open_point
from registry.recordings.recorders import LOST, LOST_AFTER, all_moved_until, forget_lost, remove_recorder, say_moved
from registry.recordings.spool import Spool, SpoolBatch, SpoolFull
from registry.trajectories.continuation import turn_points
from registry.trajectories.imports import TokenLimit
from registry.wiring import Services

log = structlog.get_logger()

SPOOL_FULL = "spool_full"
DISK = "disk"

_LOOK_SECONDS = 1.0
"""Between two looks at what is due, and at what dead processes have left. Less than a run waits for late answers."""
_RETRY_SECONDS = 2.0
_LAST_SECONDS = 5.0
_RETURN_SECONDS = 15.0
"""After the database was away, others may be longer than this process in telling it that they live."""
_UNREADABLE_SECONDS = 60.0
"""In which a disk may give back what it took."""
_STUCK_SECONDS = LOST_AFTER.total_seconds()
"""Without a single answer moved, while the database was there."""


class Recorder:
    """One of a process. `offer` may be called from any thread."""

    def __init__(self, services: Services, token_limit: Callable[[], TokenLimit]) -> None:
        """
        Args:
            token_limit: the counter that trajectories are checked by; it may raise while the base is not there.
        """
        settings = services.settings
        self._services, self._token_limit = services, token_limit
        self._spool = Spool(settings.spool_dir, most_bytes=settings.spool_bytes)
        self._waiting = WaitingCalls()
        self._counting = threading.Lock()
        self._counts: Counter[tuple[uuid.UUID, str]] = Counter()
        self._announced = AnnouncedRuns()
        self._calls = CallMover(services, self.count)
        self._is_announced = False
        """Whether the others know of this recorder, or could not be told: the keeper tells them then."""
        self._away_at = -math.inf
        """When the database was away last, by the monotonic clock."""
        self._announced_until = utc_now()
        """What the others were told last."""
        self._is_stuck = False
        self._unreadable_since: float | None = None
        every = {"seconds": _LOOK_SECONDS, "retry_seconds": _RETRY_SECONDS}
        self._mover = Repeating("recorder", self._move_own, **every)
        self._keeper = Repeating("recorder-keeper", self._keep, **every)
        self._closer = Repeating("recorder-closer", self._close, **every)
        self._left = LeftCalls(services, self._calls, lambda: self._closer.is_stopping)

    def start(self) -> None:
        for thread in (self._keeper, self._mover, self._closer):
            thread.start()

    def stop(self) -> None:
        """Move what can be moved in a moment; the rest waits for the next process."""
        until = time.monotonic() + _LAST_SECONDS
        self._closer.stop(0.0)
        for thread in (self._mover, self._keeper, self._closer):  # what was moved last is still to be counted
            thread.stop(max(0.0, until - time.monotonic()))
        self._is_announced = False
        if (name := self._spool.close()) is not None:
            try:
                with transaction(self._services.sessions) as session:
                    remove_recorder(session, name)
            except SQLAlchemyError as error:
                log.warning("others wait for this recorder, which has ended", error=type(error).__name__)

    def offer(self, call: RecordedCall) -> str | None:
        """Take a call before its answer is sent. Returns None, or the reason why it was not taken; at once, unless
        others are still to be told of this recorder: that is tried once, as long as a connection is tried."""
        try:
            if not self._is_announced:
                self._tell_others()
            self._waiting.take(call, self._spool.append)
        except SpoolFull:
            reason = SPOOL_FULL
        except OSError as error:
            log.error("an answer could not be recorded", completion=call.completion_id, error=str(error))
            reason = DISK
        else:
            self._mover.wake()
            return None
        self.count(call.project_id, reason)
        return reason

    def count(self, project_id: uuid.UUID, reason: str) -> None:
        """Count an answer that is not recorded."""
        with self._counting:
            self._counts[project_id, reason] += 1

    def waiting(self, project_id: uuid.UUID) -> int:
        """Calls of a project that this process has taken and not yet moved."""
        return self._waiting.count(project_id)

    def flush(self, seconds: float = 2.0) -> bool:
        """Wait until all that was offered to this process before stands in the database. False if it took too long."""
        self._mover.wake()
        return self._waiting.wait(seconds)

    def offer_announced(self, call: RecordedCall) -> str | None:
        """As `offer`, for a call whose answer names its run: the conversation's next request finds that run before the
        database has it."""
        self._announced.add(call)
        reason = self.offer(call)
        if reason is not None:
            self._announced.remove([call])
        return reason

    def find_point(self, kind: RunKind, messages: Sequence[Mapping[str, Any]]) -> OpenPoint | None:
        """Where a request's conversation would go on, as far as it is known now. Blocks."""
        hashes = [point.hash for point in turn_points(messages)]
        if not hashes:
            return None
        # In this order: what is moved in between is found twice, and not missed.
        waiting = self._announced.find(kind, hashes)
        try:
            with reading(self._services.sessions) as session:
                found = find_open_point(session, kind, hashes)
        except SQLAlchemyError:
            found = None
        if waiting is None or found is None:
            return waiting or found
        if waiting.hash == found.hash:
            return OpenPoint(found.hash, tuple(dict.fromkeys((*found.run_ids, *waiting.run_ids))))
        return max(waiting, found, key=lambda point: hashes.index(point.hash))

    def name_run(self, point: OpenPoint | None) -> uuid.UUID:
        """The run that an answer names which goes on from there. Where it stands is decided when it is moved."""
        return self._announced.choose(point)

    def _move_own(self) -> None:
        while (batch := self._next_batch()) is not None:
            calls = read_lines(batch.lines)
            self._calls.move(calls)
            self._spool.moved(batch)
            self._announced.remove(calls)
            self._waiting.moved(len(batch.lines))

    def _next_batch(self) -> SpoolBatch | None:
        """Raises OSError: the disk does not give back what it took. After a minute of that, it is lost, and what came
        later is moved."""
        try:
            batch = self._spool.next_batch()
        except OSError as error:
            self._unreadable_since = self._unreadable_since or time.monotonic()
            if time.monotonic() - self._unreadable_since < _UNREADABLE_SECONDS:
                raise
            self._pass_over(error)
            return self._next_batch()
        self._unreadable_since = None
        return batch

    def _pass_over(self, error: OSError) -> None:
        answers, self._unreadable_since = self._spool.pass_over(), None
        with self._counting:
            for project_id, count in self._waiting.moved(answers).items():
                self._counts[project_id, LOST] += count
        log.error("answers are lost: the disk does not give them back", answers=answers, error=str(error))

    def _keep(self) -> None:
        try:
            self._write_counts()  # first: it needs no spool
            moved_before = self._say_moved()
        except SQLAlchemyError:
            self._away_at = time.monotonic()
            raise
        with transaction(self._services.sessions) as session:
            end_rewarded(session, moved_before)

    def _tell_others(self) -> None:
        """Have others wait for this process's answers before it takes one.

        Raises:
            OSError: there is no spool.
        """
        try:
            self._say_moved()
        except SQLAlchemyError as error:  # it is told as soon as the database is back, before others end runs
            log.warning("others do not know of this recorder", error=type(error).__name__)
        self._is_announced = True

    def _say_moved(self) -> datetime:
        """Returns up to when all was moved until then: what was moved since may have been rewarded before."""
        name, until = self._spool.open(), self._waiting.moved_until()
        waiting, is_stuck = self._waiting.counts(), self._stands_still()
        answers = sum(waiting.values())
        with transaction(self._services.sessions) as session:
            moved_before = min(all_moved_until(session), self._announced_until)
            say_moved(session, name, until, waiting=waiting, is_stuck=is_stuck)
        if is_stuck and not self._is_stuck:
            log.error("nothing can be moved: runs end without the answers that wait here", answers=answers)
        elif self._is_stuck and not is_stuck:
            log.warning("answers are moved again, and runs wait for them", answers=answers)
        self._announced_until, self._is_stuck, self._is_announced = until, is_stuck, True
        return moved_before

    def _stands_still(self) -> bool:
        """Whether nothing was moved for so long that no run is to wait for it any more. Time in which the database was
        away does not count: then nobody ends runs."""
        since = self._waiting.waiting_since()
        return since is not None and time.monotonic() - max(since, self._away_at) > _STUCK_SECONDS

    def _close(self) -> None:
        try:
            self._left.take_over(self._away_at)
        finally:  # what can't be taken over is waited for by its row, which others can stop to heed
            if not self._closer.is_stopping and time.monotonic() >= self._away_at + _RETURN_SECONDS:
                self._close_due()

    def _close_due(self) -> None:
        with transaction(self._services.sessions) as session:
            for name, answers in forget_lost(session).items():
                log.warning("a recorder is lost: runs end without its answers", recorder=name, answers=answers)
            if runs := bring_back(session, utc_now()):
                log.warning("runs were answered by a clock that has been set back", runs=runs)
            projects = due_projects(session)
        while projects and not self._closer.is_stopping:
            tokens = self._token_limit()
            with transaction(self._services.sessions) as session:
                closed = close_due(session, projects[0], tokens)
            if not closed:
                projects.pop(0)

    def _write_counts(self) -> None:
        with self._counting:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return
        try:
            with transaction(self._services.sessions) as session:
                add_counts(session, counts)
        except SQLAlchemyError:
            with self._counting:
                self._counts.update(counts)
            raise
