"""When a request is sent again, and after how long. Pure; knows no HTTP and no clock."""

import random
from dataclasses import dataclass

from memgen_client.errors import ApiError, ApiUnreachable, Busy, ClientError, Unavailable


@dataclass(frozen=True)
class Retries:
    """A failed request is sent again, up to `most` times, if that can't do a thing twice.

    Certainly nothing was done where no connection came about, and where the service has said 429. After anything else
    that may pass (no answer, 502, 503, 504, 529) only what may be repeated is: reading, PUT, creations with an
    `Idempotency-Key`, and whatever the service calls harmless.
    """

    most: int = 2
    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    """A service that asks for more patience is not waited for: the error says how long it takes."""

    def pause(self, failed: int, error: ClientError, *, may_be_repeated: bool) -> float | None:
        """Seconds to wait before the next try; None where there is none.

        Args:
            failed: number of tries so far.
        """
        if failed > self.most or not (_certainly_undone(error) or (may_be_repeated and _may_pass(error))):
            return None
        asked = error.retry_after if isinstance(error, ApiError) else None
        if asked is not None:
            return asked if asked <= self.longest_seconds else None
        longest = min(self.first_seconds * 2.0 ** (failed - 1), self.longest_seconds)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - so that many clients do not come back at once


def _certainly_undone(error: ClientError) -> bool:
    return isinstance(error, Busy) or (isinstance(error, ApiUnreachable) and not error.was_sent)


def _may_pass(error: ClientError) -> bool:
    return isinstance(error, ApiUnreachable | Unavailable)
