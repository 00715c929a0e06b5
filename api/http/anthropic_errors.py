"""Errors as Anthropic's API words them, for its paths: its stock client picks its exception from the status.

https://docs.anthropic.com/en/api/errors names the statuses and types. `details.error_code` is our code.
"""

import re
from collections.abc import Mapping

from api.http.json_object import JsonObject

_PATHS = re.compile(r"/v1/messages(/.*)?\Z", re.DOTALL)

_SHARED = re.compile(r"/v1/models(/.*)?\Z", re.DOTALL)
"""Paths that OpenAI's API and Anthropic's both have."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Type of an error by its status; the others are the request's fault, or ours from 500 on."""


def is_anthropic_path(path: str) -> bool:
    return _PATHS.match(path) is not None


def is_anthropic(path: str, headers: Mapping[str, str]) -> bool:
    """Whether a request is in Anthropic's words: by its path, or by its version's header where the path is OpenAI's
    too."""
    return is_anthropic_path(path) or (_SHARED.match(path) is not None and "anthropic-version" in headers)


def anthropic_status(status: int) -> int:
    """Anthropic answers 400 where HTTP's 422 is meant, and 529 where a request may be sent again later."""
    return {422: 400, 503: 529}.get(status, status)


def anthropic_error(status: int, code: str, detail: str) -> JsonObject:
    """The body of an error, and the data of a stream's event."""
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": detail, "details": {"error_code": code}}}
