"""What an upstream answers instead of an answer, in OpenAI's shape and with its own status. Pure.

Whatever it says is bounded, and its key is cut out: servers quote the key that they did not like.
"""

import json
from typing import Any

from api.gateway.calls import UpstreamCall
from api.http.json_object import JsonObject

MOST_BYTES = 65_536
"""Most that is read of a refusal."""
_MOST_CHARACTERS = 2000
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class UpstreamRefused(Exception):
    """The upstream answered with an error. Not one of the service's own: it is passed on as it is."""

    def __init__(self, status: int, error: JsonObject, retry_after: str | None = None) -> None:
        super().__init__(str(error["message"]))
        self.status, self.retry_after = status, retry_after
        self.body: JsonObject = {"error": error}
        """In OpenAI's shape."""


def read_refusal(call: UpstreamCall, status: int, body: bytes, retry_after: str | None = None) -> UpstreamRefused:
    """What an answer with an error's status says."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = body.decode("utf-8", "replace").strip()
    wait = retry_after if retry_after is not None and retry_after.isdecimal() and len(retry_after) <= 6 else None
    return UpstreamRefused(status, _error(call, status, found), wait)


def read_error(call: UpstreamCall, error: Any) -> UpstreamRefused:
    """What the member `error` says of a reply, or a chunk, that came with a good status."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code <= 599 else 502
    return UpstreamRefused(status, _error(call, status, {"error": error}))


def _error(call: UpstreamCall, status: int, found: Any) -> JsonObject:
    """OpenAI's four members, from the shapes that servers give their errors. Google's are lists of one."""
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    inner = found.get("error", found) if isinstance(found, dict) else found
    members = inner if isinstance(inner, dict) else {"message": inner}
    message = members.get("message") or members.get("detail") or members.get("msg") or ""
    if not isinstance(message, str):
        message = json.dumps(message)
    detail = f": {message}" if message else ""
    default = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {
        "message": _shown(call, f"upstream {call.upstream.name!r} answered {status}{detail}"),
        "type": _shown(call, _text(members.get("type")) or default),
        "param": _shown(call, _text(members.get("param"))) or None,
        "code": _shown(call, _text(members.get("code")) or "upstream_error"),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""


def _shown(call: UpstreamCall, text: str) -> str:
    # First the key, then the length: a key that is cut in two would not be found.
    shown = call.upstream.without_key(text)
    return shown[:_MOST_CHARACTERS].encode("utf-8", "backslashreplace").decode()
