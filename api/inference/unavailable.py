"""Why there is no answer now; the same request may be answered later."""

from registry.errors import Unavailable

STOPPING = "the service is stopping"


class InferenceUnavailable(Unavailable):
    """The model is not loaded (yet), or did not answer in time."""


class Preempted(InferenceUnavailable):
    """A background answer was given up for a request that a client waits for. It can be sent again."""
