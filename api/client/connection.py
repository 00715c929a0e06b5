"""The former client's errors under the module that they were in. Goes with the next release."""

from memgen_client import ApiError, ApiUnreachable, ClientError

__all__ = ["ApiError", "ApiUnreachable", "ClientError"]
