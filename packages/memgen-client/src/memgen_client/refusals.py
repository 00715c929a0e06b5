"""Refusals as the service words them: problem+json, OpenAI's shape, Anthropic's, or whatever else came."""

from collections.abc import Mapping

from memgen_client.errors import ApiError, error_class
from memgen_client.json_values import JsonObject, JsonValue


def refusal(status: int, body: JsonObject, headers: Mapping[str, str], url: str) -> ApiError:
    """The error that an answer with this status is.

    Args:
        body: the answer's JSON object, empty where it is none.
        headers: the answer's, by names in lower case.
    """
    code, detail, param = _said(body)
    if not detail:
        code, param = f"http_{status}", None
        detail = foreign(url, status)
    return error_class(status)(
        status,
        code or f"http_{status}",
        detail,
        param=param,
        request_id=headers.get("x-request-id"),
        retry_after=_seconds(headers.get("retry-after")),
    )


def refusal_in_stream(error: JsonValue) -> ApiError:
    """An error in the middle of an answer, whose status is that of its beginning."""
    code, detail, param = _said({"error": error})
    return ApiError(200, code or "internal_error", detail or "the answer ended in an error without words", param=param)


def foreign(url: str, status: int) -> str:
    """What to say of an answer that is not the service's."""
    return (
        f"{url} answered {status}, and not as the MemGen API would; expected JSON of its own. Is MEMGEN_API_URL right?"
    )


def _said(body: JsonObject) -> tuple[str, str, str | None]:
    """Code, text and place of the fault; empty where the body says none."""
    inner = body.get("error")
    if isinstance(inner, dict):
        details = inner.get("details")
        named = details.get("error_code") if isinstance(details, dict) else None  # Anthropic's shape
        param = inner.get("param")
        return _text(inner.get("code") or named), _text(inner.get("message")), param if isinstance(param, str) else None
    code = _text(body.get("type")).rpartition(":")[2]
    return code, _text(body.get("detail")), _place(body.get("errors"))


def _place(errors: JsonValue) -> str | None:
    """`training.steps` for the first of a problem's `errors`, whose places begin with `body` or `query`."""
    first = errors[0] if isinstance(errors, list) and errors else None
    place = first.get("place") if isinstance(first, dict) else None
    if not isinstance(place, str):
        return None
    return place.partition(".")[2] or place


def _text(value: JsonValue | None) -> str:
    return "" if value is None else str(value)


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isascii() and value.isdecimal() else None
