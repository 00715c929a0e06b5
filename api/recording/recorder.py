"""The recorder of one process: takes calls at the cost of a write to a file, and moves them into the database behind
the answers' backs.

A call that was taken is not lost with the process (`registry.recordings.spool`). What can't be taken is counted by its
reason; so is what a policy keeps out.
"""

import threading
import time
import traceback
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from registry.database import transaction
from registry.recordings.call import RecordedCall
from registry.recordings.closing import ClosedRun, close_due, due_projects
from registry.recordings.counts import add_counts
from registry.recordings.joining import find_open_run, record_calls
from registry.recordings.spool import Spool, SpoolFull, abandoned, read_segment
from registry.trajectories.continuation import tip_of
from registry.trajectories.imports import TokenLimit
from registry.wiring import Services

log = structlog.get_logger()

SPOOL_FULL = "spool_full"
DISK = "disk"
UNREADABLE = "unreadable"

_LOOK_SECONDS = 0.5
"""Between two looks at what is due, where nothing wakes the thread."""
_SWEEP_SECONDS = 10.0
_RETRY_SECONDS = 2.0
_TIPS = 10_000
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
        self._tips: OrderedDict[tuple[str, str, str], uuid.UUID] = OrderedDict()
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
        reason = self.offer(call)
        if reason is None:
            self._remember(call)
        return reason

    def _remember(self, call: RecordedCall) -> None:
        tip = tip_of(call.messages, call.answer)
        with self._counting:
            self._tips[(call.project_id.hex, call.scope, tip)] = call.run_id
            while len(self._tips) > _TIPS:
                self._tips.popitem(last=False)

    def find_run(self, project_id: uuid.UUID, scope: str, tips: Sequence[str]) -> uuid.UUID | None:
        """The run that a conversation with these tips would continue, as far as it is known now: the answer names it.

        Where it goes in the end is decided when it is moved.
        """
        with self._counting:
            found = [self._tips.get((project_id.hex, scope, tip)) for tip in tips]
        if found[-1] is not None:
            return found[-1]
        try:
            with transaction(self._services.sessions) as session:
                return find_open_run(session, project_id, scope, tips) or next(filter(None, reversed(found)), None)
        except SQLAlchemyError:
            return None

    def _run(self) -> None:
        swept = -_SWEEP_SECONDS
        while True:
            stopping = self._stopping.is_set()
            try:
                self._move_own()
                self._write_counts()
                if stopping:
                    return
                if time.monotonic() - swept >= _SWEEP_SECONDS:
                    self._take_over()
                    swept = time.monotonic()
                self._close_due()
            except Exception as error:  # the database is away, or a bug: answers go on, and what waits waits
                where = traceback.format_tb(error.__traceback__)[-3:]  # the message may hold what was to be stored
                log.error("recording waits", error=type(error).__name__, where=where)
                if stopping:
                    return
                self._stopping.wait(_RETRY_SECONDS)
                continue
            self._wake.wait(_LOOK_SECONDS)
            self._wake.clear()

    def _move_own(self) -> None:
        while (batch := self._spool.next_batch()) is not None:
            self._move(batch.lines, mine=True)
            self._spool.moved(batch)
            with self._idle:
                self._moved += len(batch.lines)
                self._idle.notify_all()

    def _take_over(self) -> None:
        """Move what processes of this machine left behind that are no more."""
        while True:
            with abandoned(self._services.settings.spool_dir) as segments:
                for path in segments:
                    for lines in read_segment(path):
                        self._move(lines, mine=False)
                    path.unlink()
                if not segments:
                    return

    def _move(self, lines: Sequence[bytes], *, mine: bool) -> None:
        scopes: dict[tuple[uuid.UUID, str], list[RecordedCall]] = {}
        for line in lines:
            try:
                call = RecordedCall.from_line(line)
            except (ValueError, KeyError, TypeError):
                log.error("a line of the spool is unreadable", length=len(line))
                continue
            scopes.setdefault((call.project_id, call.scope), []).append(call)
        for calls in scopes.values():
            self._record(calls)
            if mine:
                with self._counting:
                    self._waiting[calls[0].project_id] -= len(calls)

    def _record(self, calls: Sequence[RecordedCall]) -> None:
        """One transaction for calls of one scope; each by itself where one of them can't be stored."""
        try:
            with transaction(self._services.sessions) as session:
                joined = record_calls(session, calls, most_bytes=self._services.settings.max_trajectory_bytes)
        except (OperationalError, InterfaceError):
            raise
        except (DBAPIError, SQLAlchemyError, ValueError, KeyError, TypeError, AttributeError) as error:
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
