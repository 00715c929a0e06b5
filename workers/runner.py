"""Running one job: claim it, keep its lease alive, do the work, record how it ended."""

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy.exc import IntegrityError, NoResultFound, SQLAlchemyError
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError

from memgen.errors import Cancelled, MemgenError
from registry import jobs
from registry.database import may_pass, transaction
from registry.errors import RegistryError, Unavailable
from registry.job_requests import JobKind
from registry.models import Job
from registry.wiring import Services
from registry.wording import counted

log = structlog.get_logger()
Handler = Callable[["Running"], dict[str, Any]]

_PROGRESS_SECONDS = 1.0
_EVENT_SECONDS = 10.0
_OVERTAKEN = (IntegrityError, NoResultFound, StaleDataError, ObjectDeletedError)
"""What is raised when a row is gone or has come that was not so a moment ago, for example by a deletion: the next
attempt finds things as they are then."""


@dataclass
class Running:
    """A claimed job, as its handler uses it."""

    services: Services
    job_id: uuid.UUID
    attempt: int
    stop: threading.Event
    """Set when the job was cancelled or lost; `check` raises from then on."""
    _progress_at: float = field(default=0.0)
    _event_at: float = field(default=0.0)

    def check(self) -> None:
        if self.stop.is_set():
            raise Cancelled("the job was cancelled, or another worker took it over")

    def event(self, message: str, data: dict[str, Any] | None = None, *, level: str = "info") -> None:
        with transaction(self.services.sessions) as session:
            jobs.add_event(session, self.job_id, level, message, data)

    def progress(self, phase: str, data: dict[str, Any], *, last: bool = False) -> None:
        """Report progress: on the row at most once a second, as an event every ten seconds and at the end."""
        now = time.monotonic()
        if not last and now - self._progress_at < _PROGRESS_SECONDS:
            return
        self._progress_at = now
        with transaction(self.services.sessions) as session:
            jobs.record_progress(session, self.job_id, self.attempt, {"phase": phase, **data})
            if last or now - self._event_at >= _EVENT_SECONDS:
                self._event_at = now
                jobs.add_event(session, self.job_id, "progress", phase, data)


def run(services: Services, handlers: Mapping[JobKind, Handler], job_id: uuid.UUID, worker: str) -> None:
    """Run a job to its end. Returns at once if the job has ended or another worker has it."""
    settings = services.settings
    with transaction(services.sessions) as session:
        attempt = jobs.claim(session, job_id, worker, settings.job_lease_seconds)
        if attempt is None:
            return
        job = session.get_one(Job, job_id)
        kind = job.kind
        handler = next((handler for known, handler in handlers.items() if known == kind), None)
        jobs.add_event(session, job_id, "info", "started", {"worker": worker, "attempt": attempt})
    with structlog.contextvars.bound_contextvars(job=str(job_id), attempt=attempt):
        stop = threading.Event()
        heart = threading.Thread(
            target=_heartbeat, args=(services, job_id, attempt, stop), daemon=True, name="heartbeat"
        )
        heart.start()
        try:
            running = Running(services, job_id, attempt, stop)
            if handler is None:
                expected = ", ".join(sorted(handlers))
                _end(running, "failed", error=f"this worker knows no job of kind {kind!r}; expected one of {expected}")
            else:
                _work(running, handler)
        finally:
            stop.set()
            heart.join()


def _work(running: Running, handler: Handler) -> None:
    try:
        result = handler(running)
    except Cancelled:
        log.info("job cancelled")
        _end(running, "cancelled")
    except Exception as error:
        if isinstance(error, (Unavailable, *_OVERTAKEN)) or may_pass(error):
            _interrupt(running, error)
        elif isinstance(error, RegistryError | MemgenError):
            log.warning("job failed", error=str(error))
            _end(running, "failed", error=str(error))
        else:
            log.exception("job failed unexpectedly")
            what = f"unexpected {type(error).__name__}: {_first_line(error)}"
            _end(running, "failed", error=f"{what}; see the worker's log")
    else:
        _end(running, "succeeded", result=result)


def _interrupt(running: Running, error: Exception) -> None:
    """Let another attempt follow, if there may be one."""
    reason = _first_line(error)
    log.warning("job interrupted", error=str(error))
    if running.attempt >= running.services.settings.job_max_attempts:
        _end(running, "failed", error=f"{reason}; tried {counted(running.attempt, 'time')}")
        return
    with transaction(running.services.sessions) as session:
        jobs.release(session, running.job_id, running.attempt, reason)


def _first_line(error: Exception) -> str:
    """What is shown of an error: the rest can be a query with its parameters, and is in the log."""
    return str(error).partition("\n")[0]


def _end(running: Running, state: str, *, result: dict[str, Any] | None = None, error: str | None = None) -> None:
    with transaction(running.services.sessions) as session:
        if not jobs.finish(session, running.job_id, running.attempt, state, result=result, error=error):
            log.warning("the job was taken over; this attempt's end is not recorded", state=state)


def _heartbeat(services: Services, job_id: uuid.UUID, attempt: int, stop: threading.Event) -> None:
    """Extend the lease until `stop` is set; set it when the job is cancelled or lost, so that the handler stops."""
    lease = services.settings.job_lease_seconds
    last_success = time.monotonic()
    while not stop.wait(min(lease / 4, 5.0)):
        try:
            with transaction(services.sessions) as session:
                if not jobs.heartbeat(session, job_id, attempt, lease):
                    stop.set()
            last_success = time.monotonic()
        except SQLAlchemyError as error:  # whatever it is, a heart that stops would leave the handler at work
            log.warning("heartbeat failed", error=str(error))
            if time.monotonic() - last_success > lease:
                stop.set()
