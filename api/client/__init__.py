"""Where the Python client was before it was a package of its own, `memgen_client`; its names answer for this release.

`from api.client import Client` is `memgen_client.JsonClient`, with the calls that it had here. The next release drops
this room.
"""

from api.client.deprecated import Client
from api.http.json_object import JsonObject
from memgen_client import LIVE_STATES, ApiError, ApiUnreachable, ClientError
from memgen_client import Update as JobUpdate

Update = JobUpdate

__all__ = ["LIVE_STATES", "ApiError", "ApiUnreachable", "Client", "ClientError", "JobUpdate", "JsonObject", "Update"]
