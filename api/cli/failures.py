"""What a command could not do: in one line for people, and as the document that `--json` promises.

Knows which errors a user can cause; any other is a bug, and is left to its traceback.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from api.cli.invocation import CommandFailed
from api.http.json_object import JsonObject

if TYPE_CHECKING:
    from memgen_client import ApiError

_KEY = "The key came from MEMGEN_API_KEY, or else from service.env in MEMGEN_HOME."
_HINTS = {
    "task_not_found": "`memgen task list` shows the tasks, `memgen task create NAME` makes one.",
    "adapter_not_found": "`memgen adapter list` shows the adapters, `memgen adapter create NAME` makes one.",
    "model_not_found": "`memgen adapter list` shows the adapters, `memgen versions ADAPTER` their versions.",
    "version_not_found": "`memgen versions ADAPTER` shows them.",
    "route_not_found": "`memgen route list ADAPTER` shows them.",
    "analysis_not_found": "`memgen analyze ADAPTER@VERSION` makes one.",
    "judge_not_found": "`memgen judge list` shows the judges, `memgen judge create NAME` makes one.",
    "schedule_not_found": "`memgen schedule list` shows them.",
    "webhook_not_found": "`memgen webhooks list` shows them.",
    "loop_not_found": "`memgen loop list` shows them, `memgen loop create ADAPTER --task TASK` makes one.",
    "stale_alias": "`memgen versions ADAPTER` shows where the aliases stand.",
    "upstream_not_found": "`memgen upstreams list` shows them.",
    "unknown_key": _KEY,
    "invalid_api_key": _KEY,
}
"""What to do as commands, by the API's error code."""
_FILE_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Make room there, or name a place on another disk."),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Name a place that is yours."),
}
"""What to do about a file that a user named, by what the system said of it."""
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True)
class Failure:
    """Why a command ended without doing its work."""

    code: str
    """Stable for programs: the API's (docs/errors.md), or what kind of failure it is here."""
    detail: str
    advice: str = ""
    status: int | None = None
    """HTTP status, if it was the API that refused."""
    param: str | None = None
    request_id: str | None = None

    def __str__(self) -> str:
        if self.status is None:
            return f"{self.detail} {self.advice}".rstrip()
        text = " ".join(f"{self.detail}. {self.advice}".replace("..", ".").split())
        request = f", request {self.request_id}" if self.status >= 500 and self.request_id else ""
        return f"{text} ({self.status} {self.code}{request})"

    def document(self) -> JsonObject:
        named = {"status": self.status, "param": self.param, "request_id": self.request_id}
        known = {name: value for name, value in named.items() if value is not None}
        return {"code": self.code, "detail": self.detail, "advice": self.advice, **known}


def expected(error: Exception) -> Failure | None:
    """What to say of an error that a user can cause; None for a bug."""
    from api.local.errors import LocalStackError
    from memgen.errors import MemgenError
    from memgen_client import ApiError, ClientError
    from registry.errors import RegistryError

    if isinstance(error, ApiError):
        advice = " ".join([*getattr(error, "__notes__", ()), _advice(error)]).strip()
        return Failure(error.code, error.detail, advice, error.status, error.param, error.request_id)
    if isinstance(error, CommandFailed | ClientError | LocalStackError | RegistryError | MemgenError):
        return Failure(_kind(error), str(error))
    if isinstance(error, OSError) and error.strerror and error.filename:
        advice = _FILE_ADVICE.get(error.errno or 0, "")
        return Failure("file_error", f"{error.filename}: {error.strerror}.", advice)
    return None


def misuse(end: SystemExit) -> Failure | None:
    """What was wrong with the words of a command that the parser ended."""
    say = getattr(end.__context__, "format_message", None)
    return None if say is None else Failure("usage", say())


def _advice(error: ApiError) -> str:
    hint = _HINTS.get(error.code, "")
    return "" if hint in error.detail or hint.rstrip(".") in error.detail else hint


def _kind(error: Exception) -> str:
    """`api_unreachable` of ApiUnreachable."""
    return _CAPITAL.sub("_", type(error).__name__).lower()
