"""The recorder of one process: takes calls at the cost of a write to a file, and moves them into the database behind
the answers' backs.

A call that was taken is not lost with the process (`registry.recordings.spool`). What can't be taken is counted by its
reason; so is what a policy keeps out.
"""

import math
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.recording.announced import AnnouncedRuns
from registry.database import may_pass, transaction
from registry.recordings.call import RecordedCall
from registry.recordings.closing import ClosedRun, close_due, due_projects
from registry.recordings.counts import add_counts
from registry.recordings.joining import record_calls
from registry.recordings.open_points import OpenPoint, RunKind, find_open_point
from registry.recordings.spool import Spool, SpoolFull, abandoned, read_segment
from registry.trajectories.continuation import turn_points
from registry.trajectories.imports import TokenLimit
from registry.wiring import Services

log = structlog.get_logger()

SPOOL_FULL = "spool_full"
DISK = "disk"
UNREADABLE = "unreadable"

_LOOK_SECONDS = 1.0
"""Between two looks at what is due, and at what dead processes have left. Less than a run waits for late answers."""
_RETRY_SECONDS = 2.0
_LAST_SECONDS = 5.0


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
        self._counting = threading.Lock()
        self._counts: Counter[tuple[uuid.UUID, str]] = Counter()
        self._waiting: Counter[uuid.UUID] = Counter()
        self._announced = AnnouncedRuns()
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._idle = threading.Condition()
        self._offered = self._moved = 0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self.on_closed: list[Callable[[ClosedRun], None]] = []
        """Called in the recorder's thread with each run that was closed, after the commit."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Move what can be moved in a moment; the rest waits for the next process."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_SECONDS)
        self._spool.close()

    def offer(self, call: RecordedCall) -> str | None:
        """Take a call before its answer is sent. Returns at once: None, or the reason why it was not taken."""
        try:
            self._spool.append(call.to_line())
        except SpoolFull:
            reason = SPOOL_FULL
        except OSError as error:
            log.error("an answer could not be recorded", completion=call.completion_id, error=str(error))
            reason = DISK
        else:
            with self._counting:
                self._waiting[call.project_id] += 1
                self._offered += 1
            self._wake.set()
            return None
        self.count(call.project_id, reason)
        return reason

    def count(self, project_id: uuid.UUID, reason: str) -> None:
        """Count an answer that is not recorded."""
        with self._counting:
            self._counts[project_id, reason] += 1

    def waiting(self, project_id: uuid.UUID) -> int:
        """Calls of a project that this process has taken and not yet moved."""
        return self._waiting[project_id]

    def flush(self, seconds: float = 2.0) -> bool:
        """Wait until all that was offered to this process before stands in the database. False if it took too long."""
        with self._counting:
            wanted = self._offered
        self._wake.set()
        with self._idle:
            return self._idle.wait_for(lambda: self._moved >= wanted, timeout=seconds)

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
            with transaction(self._services.sessions) as session:
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

    def _run(self) -> None:
        looked = -_LOOK_SECONDS
        while True:
            stopping = self._stopping.is_set()
            try:
                self._move_own(math.inf if stopping else looked + _LOOK_SECONDS)
                if stopping:
                    self._write_counts()
                    return
                if time.monotonic() >= looked + _LOOK_SECONDS:
                    looked = time.monotonic()
                    self._write_counts()
                    self._take_over()
                    self._close_due()
            except Exception as error:  # the database is away, or a bug: answers go on, and what waits waits
                where = traceback.format_tb(error.__traceback__)[-3:]  # the message may hold what was to be stored
                log.error("recording waits", error=type(error).__name__, where=where)
                if stopping:
                    return
                self._stopping.wait(_RETRY_SECONDS)
                continue
            self._wake.wait(max(0.0, looked + _LOOK_SECONDS - time.monotonic()))
            self._wake.clear()

    def _move_own(self, until: float) -> None:
        """Move what waits. Under a load that never ends, runs must end, too: at some time it returns."""
        while (batch := self._spool.next_batch()) is not None:
            calls = self._move(batch.lines)
            self._spool.moved(batch)
            self._announced.remove(calls)
            with self._counting:
                self._waiting.subtract(call.project_id for call in calls)
            with self._idle:
                self._moved += len(batch.lines)
                self._idle.notify_all()
            if time.monotonic() >= until:
                self._wake.set()
                return

    def _take_over(self) -> None:
        """Move what processes of this machine left behind that are no more."""
        while True:
            with abandoned(self._services.settings.spool_dir) as segments:
                for path in segments:
                    for lines in read_segment(path):
                        self._move(lines)
                    path.unlink()
                if not segments:
                    return

    def _move(self, lines: Sequence[bytes]) -> list[RecordedCall]:
        scopes: dict[tuple[uuid.UUID, str], list[RecordedCall]] = {}
        for line in lines:
            try:
                call = RecordedCall.from_line(line)
            except (ValueError, KeyError, TypeError, RecursionError):
                log.error("a line of the spool is unreadable", length=len(line))
                continue
            scopes.setdefault((call.project_id, call.scope), []).append(call)
        for calls in scopes.values():
            self._record(calls)
        return [call for calls in scopes.values() for call in calls]

    def _record(self, calls: Sequence[RecordedCall]) -> None:
        """One transaction for calls of one scope; each by itself where one of them can't be stored."""
        try:
            with transaction(self._services.sessions) as session:
                joined = record_calls(session, calls, most_bytes=self._services.settings.max_trajectory_bytes)
        except Exception as error:  # one call's trouble is never the others'
            if may_pass(error):
                raise
            if len(calls) > 1:
                for call in calls:
                    self._record([call])
                return
            # Not its message: that holds what was to be stored.
            log.error("an answer could not be recorded", completion=calls[0].completion_id, error=type(error).__name__)
            self.count(calls[0].project_id, UNREADABLE)
            return
        with self._counting:
            for each in joined:
                if each.outcome != "again":
                    self._counts[calls[0].project_id, each.outcome] += 1

    def _close_due(self) -> None:
        with transaction(self._services.sessions) as session:
            projects = due_projects(session)
        while projects and not self._stopping.is_set():
            tokens = self._token_limit()
            with transaction(self._services.sessions) as session:
                closed = close_due(session, projects[0], tokens)
            for run in closed:
                for listener in self.on_closed:
                    listener(run)
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
