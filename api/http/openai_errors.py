"""Errors as OpenAI's API words them, for its paths: the stock client picks its exception and what it shows from these.

https://platform.openai.com/docs/guides/error-codes names the statuses, types and codes.
"""

import re
from collections.abc import Sequence
from typing import Any

from api.http.json_object import JsonObject
from api.http.not_offered import is_not_offered
from api.http.places import own_place

_PATHS = re.compile(r"/v1/(chat|completions|models|responses)(/.*)?\Z", re.DOTALL)

_TYPES = {429: "rate_limit_error"}
"""Type of an error by its status, where it is neither of the two that nearly all have."""

_CODES = {
    "unknown_key": "invalid_api_key",
    "adapter_not_found": "model_not_found",
    "alias_not_found": "model_not_found",
    "version_not_found": "model_not_found",
    "upstream_not_found": "model_not_found",
    "prompt_too_long": "context_length_exceeded",
    "queue_full": "rate_limit_exceeded",
    "upstream_busy": "rate_limit_exceeded",
    "schema_refused": "invalid_json_schema",
    "http_404": "unknown_url",
    "http_405": "method_not_supported",
    "http_413": "request_too_large",
    "http_415": "unsupported_media_type",
}
"""OpenAI's code by ours; ours that are not named here have no counterpart and stay."""

_PARAMS = {
    "model_not_found": "model",
    "context_length_exceeded": "messages",
    "min_tokens_too_large": "min_tokens",
    "version_not_servable": "model",
}
"""The parameter that is always at fault, by code."""

_PLACE = re.compile(
    r"((?:input|messages|previous_response_id|prompt|tools|stop|stream|model|tool_choice|response_format|text|logit_bias"
    r"|max_completion_tokens|max_output_tokens|max_tokens|user|metadata)[\w.\[\]]*): "
)
"""How the registry's checks of a conversation begin their messages."""

_INVALID_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "too_long": "array_above_max_length",
    "too_short": "array_below_min_length",
    "string_too_long": "string_above_max_length",
    "string_too_short": "string_below_min_length",
}
_BOUNDS = {"greater_than": "below_min", "greater_than_equal": "below_min"}
_BOUNDS |= {"less_than": "above_max", "less_than_equal": "above_max"}


def is_openai_path(path: str) -> bool:
    """Also for what OpenAI has and this service does not."""
    return _PATHS.match(path) is not None or is_not_offered(path)


def openai_status(status: int) -> int:
    """Where HTTP's 422 is meant, OpenAI answers 400."""
    return 400 if status == 422 else status


def openai_error(status: int, code: str, detail: str, param: str | None = None, path: str = "") -> JsonObject:
    """The body of an error on that path: `error` with `message`, `type`, `param`, `code`."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    code = _CODES.get(code, code)
    if param is None:
        place = _PLACE.match(detail)
        param = place.group(1) if place else _PARAMS.get(code)
        param = own_place(path, param) if param else None
    if code == "invalid_json_schema" and param and param.startswith("tools"):
        code = "invalid_function_parameters"
    return {"error": {"message": detail, "type": kind, "param": param, "code": code}}


def openai_param(place: Sequence[str | int]) -> str | None:
    """`messages[0].content` for the place of a validation error, without its first part, which is `body` or `query`."""
    return place_text(place[1:])[:200] or None


def place_text(place: Sequence[str | int]) -> str:
    """`messages[0].content` for `("messages", 0, "content")`."""
    named = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return named.removeprefix(".")


def openai_invalid_code(error: dict[str, Any]) -> str:
    """OpenAI's code for one of pydantic's errors."""
    kind = str(error["type"])
    if kind in _BOUNDS:
        number = "integer" if isinstance(error.get("input"), int) else "decimal"
        return f"{number}_{_BOUNDS[kind]}_value"
    if kind.endswith(("_type", "_parsing", "_attributes_type")):
        return "invalid_type"
    return _INVALID_CODES.get(kind, "invalid_value")
