"""The former client under the module that it was in. Goes with the next release."""

from api.client.deprecated import Client
from memgen_client import LIVE_STATES
from memgen_client import Update as JobUpdate

__all__ = ["LIVE_STATES", "Client", "JobUpdate"]
