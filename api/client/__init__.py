"""The Python client of the REST API: `from api.client import Client`."""

import warnings
from typing import TYPE_CHECKING, Any

from api.client.client import LIVE_STATES, Client, JobUpdate
from api.client.connection import ApiError, ApiUnreachable, ClientError
from api.http.json_object import JsonObject

__all__ = ["LIVE_STATES", "ApiError", "ApiUnreachable", "Client", "ClientError", "JobUpdate", "JsonObject"]

if not TYPE_CHECKING:  # see `deprecated.py`

    def __getattr__(name: str) -> Any:
        if name != "Update":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        warnings.warn(
            "api.client.Update is now api.client.JobUpdate; the old name goes with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return JobUpdate
