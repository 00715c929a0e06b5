"""Following a job to its end, over connections that break: what is decided, without any waiting or sending."""

from dataclasses import dataclass
from typing import Literal

from memgen_client.errors import ApiUnreachable, ClientError, Unavailable, WaitTimedOut
from memgen_client.json_values import JsonObject
from memgen_client.streams import ServerSentEvent

LIVE_STATES = ("queued", "running")
"""A job in another state has ended."""
RECONNECT_SECONDS = 0.5
SILENCE_SECONDS = 30.0
"""A silent stream is opened anew after it: a dead connection looks like a quiet job."""


@dataclass(frozen=True)
class Update:
    """Something new about a job that is followed: an event, or the job as it is now."""

    kind: Literal["event", "job"]
    data: JsonObject


class Following:
    """One job that is followed. `now` is in seconds of a monotonic clock."""

    def __init__(
        self, job_id: str, *, now: float, after: int = 0, patience_seconds: float = 60.0, timeout: float | None = None
    ) -> None:
        self.job: JsonObject | None = None
        """The job as it was last seen."""
        self.after = after
        """Number of the last event that was seen."""
        self._id, self._patience = job_id, patience_seconds
        self._gone_since: float | None = None
        """When the first of the connections broke that brought nothing since."""
        self._timeout, self._deadline = timeout, None if timeout is None else now + timeout

    @property
    def has_ended(self) -> bool:
        """To be asked where a stream ends: behind the last state, events may come yet."""
        return self.job is not None and self.job.get("state") not in LIVE_STATES

    def silence(self, now: float) -> float:
        """Seconds without a word until the stream is opened anew.

        Raises:
            WaitTimedOut: the time is up.
        """
        if self._deadline is None:
            return SILENCE_SECONDS
        left = self._deadline - now
        if left <= 0:
            raise WaitTimedOut(self._id, self._timeout or 0.0)
        return min(SILENCE_SECONDS, max(left, 0.05))

    def take(self, event: ServerSentEvent | None, now: float) -> Update | None:
        """What is new in it; None is a line that ends no event, as a comment. Raises WaitTimedOut."""
        self._gone_since = None
        self.silence(now)  # a stream that says much has no silence in which the time could run out
        if event is None:
            return None
        if event.kind == "event":
            self.after = event.id
            return Update("event", event.data)
        if event.kind == "job" and event.data != self.job:  # a new connection begins with a state that is known
            self.job = event.data
            return Update("job", event.data)
        return None

    def broke(self, error: ClientError, now: float) -> None:
        """A connection broke, or ended before the job did. Raises the error, unless it may pass and the patience
        lasts."""
        self._gone_since = now if self._gone_since is None else self._gone_since
        passing = isinstance(error, ApiUnreachable | Unavailable)
        if not passing or now - self._gone_since > self._patience:
            raise error


def state_of(job: JsonObject) -> tuple[str, str | None]:
    """A job's state, and what it says of its failure."""
    error = job.get("error")
    return str(job.get("state")), error if isinstance(error, str) else None
