"""Why there is no answer now; the same request may be answered later."""

from registry.errors import Busy, TimedOut, Unavailable

STOPPING = "the service is stopping"


class InferenceUnavailable(Unavailable):
    """The model is not loaded (yet), or did not answer in time."""


class Preempted(InferenceUnavailable):
    """A background answer was given up for a request that a client waits for. It can be sent again."""


class NotBegunInTime(InferenceUnavailable):
    """The request's time passed while it waited; nothing was computed for it."""


class NotFinishedInTime(TimedOut, InferenceUnavailable):
    """The request's time passed while it was answered."""


class QueueFull(Busy):
    """More requests wait than this process lets wait."""


def too_late(seconds: float, *, begun: bool) -> InferenceUnavailable:
    """The error of a request whose time has passed."""
    more = "raise MEMGEN_INFERENCE_TIMEOUT_SECONDS, or X-Memgen-Timeout where the request sent it"
    if begun:
        return NotFinishedInTime(f"no answer within {seconds:g} s; lower max_tokens or {more}")
    return NotBegunInTime(f"not begun within {seconds:g} s, for others came first; send it again later, or {more}")
