"""Jobs, and what they say while they run."""

from datetime import datetime
from typing import ClassVar

from memgen_client.following import LIVE_STATES
from memgen_client.json_values import JsonObject
from memgen_client.models.model import Model


class Job(Model):
    shown: ClassVar[tuple[str, ...]] = ("id", "kind", "state", "adapter", "created_at", "finished_at")

    id: str
    kind: str
    state: str
    """`queued`, `running`, `succeeded`, `failed` or `cancelled`."""
    adapter: str | None
    params: JsonObject
    attempt: int
    progress: JsonObject
    result: JsonObject | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    waits_for_broker: bool
    """Queued, and not handed to the broker: it is just about to be, or the broker is down. Then it is sent later."""

    @property
    def has_ended(self) -> bool:
        return self.state not in LIVE_STATES

    @property
    def version(self) -> int | None:
        """Number of the version that the job made; None where it made none."""
        number = (self.result or {}).get("version")
        return number if isinstance(number, int) else None


class JobEvent(Model):
    seq: int
    at: datetime
    level: str
    message: str
    data: JsonObject
