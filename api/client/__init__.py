"""The Python client of the REST API: `from api.client import Client`."""

from api.client.client import LIVE_STATES, Client, Update
from api.client.connection import ApiError, ApiUnreachable, ClientError, JsonObject

__all__ = ["LIVE_STATES", "ApiError", "ApiUnreachable", "Client", "ClientError", "JsonObject", "Update"]
