"""The typed client of a MemGen service: `from memgen_client import Client`. Needs neither torch nor a database."""

from memgen_client.client import AsyncClient, Client, JsonClient
from memgen_client.errors import (
    ApiError,
    ApiUnreachable,
    BadRequest,
    Busy,
    ClientError,
    Conflict,
    Invalid,
    JobEnded,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    ServiceFailed,
    TooLarge,
    Unavailable,
    UnexpectedReply,
    WaitTimedOut,
)
from memgen_client.following import LIVE_STATES, Update
from memgen_client.models.jobs import Job, JobEvent
from memgen_client.models.rows import Page, Rows

__all__ = [
    "LIVE_STATES",
    "ApiError",
    "ApiUnreachable",
    "AsyncClient",
    "BadRequest",
    "Busy",
    "Client",
    "ClientError",
    "Conflict",
    "Invalid",
    "Job",
    "JobEnded",
    "JobEvent",
    "JsonClient",
    "NotAllowed",
    "NotAuthenticated",
    "NotFound",
    "Page",
    "Rows",
    "ServiceFailed",
    "TooLarge",
    "Unavailable",
    "UnexpectedReply",
    "Update",
    "WaitTimedOut",
]
