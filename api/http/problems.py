"""From errors to HTTP: RFC 9457 problem+json, or OpenAI's and Anthropic's shapes under their paths."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import memgen.errors as memgen_errors
import registry.errors as registry_errors
from api.http.anthropic_errors import anthropic_error, anthropic_status, is_anthropic
from api.http.database_errors import domain_error
from api.http.not_offered import why_not_offered
from api.http.openai_errors import is_openai_path, openai_error, openai_invalid_code, openai_param, openai_status
from api.http.otlp_errors import is_otlp_path, otlp_error
from api.http.places import own_words
from registry.json_text import show

log = structlog.get_logger()

STATUS: dict[type[Exception], int] = {
    registry_errors.RegistryError: 500,
    registry_errors.NotFound: 404,
    registry_errors.Conflict: 409,
    registry_errors.Invalid: 422,
    registry_errors.Forbidden: 403,
    registry_errors.UnknownKey: 401,
    registry_errors.SignInEnded: 401,
    registry_errors.UnreadableRow: 500,
    registry_errors.Busy: 429,
    registry_errors.TimedOut: 504,
    registry_errors.OutboundFailed: 502,
    registry_errors.Unavailable: 503,
    memgen_errors.MemgenError: 500,
    memgen_errors.ModelError: 500,
    memgen_errors.ModelNotFound: 503,
    memgen_errors.BaseRefused: 503,
    memgen_errors.ChatTemplateError: 422,
    memgen_errors.ConfigError: 422,
    memgen_errors.SchemaRefused: 422,
    memgen_errors.ConstraintUnsupported: 422,
    memgen_errors.ArtifactError: 500,
    memgen_errors.PromptTooLong: 422,
    memgen_errors.TrainingError: 500,
    memgen_errors.Cancelled: 500,
    memgen_errors.SandboxUnavailable: 503,
    memgen_errors.UnknownGrader: 422,
}
"""Status of each class; a subclass not named here takes its nearest ancestor's."""

_BUG = "internal_error", "an unexpected error; it was logged on the server"
_CLIENT_GONE = 499
"""Status in the log for a client that went away, as nginx has it."""
RETRY_SECONDS = 5
_SHOWN_ERRORS = 20
"""Faults of one body that are listed; the others are counted."""
_SHOWN_CHARACTERS = 4000
_KEY = re.compile(r"\b(mg_|sk-|whsec_)[\w+/=-]{4,}")


@dataclass(frozen=True)
class Described:
    """An error as it may leave the service, in no API's shape yet."""

    status: int
    code: str
    detail: str


def status_of(error: Exception) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def code_of(error: Exception) -> str:
    """An error's own code, or its class name: `StaleAlias` becomes `stale_alias`."""
    own = getattr(error, "code", None)
    if isinstance(own, str):
        return own
    name = type(error).__name__
    return "".join(f"_{c.lower()}" if c.isupper() and n else c.lower() for n, c in enumerate(name))


def install(app: FastAPI) -> None:
    """Let the application answer errors by `answer`. `LastResort` does for those of no known kind."""
    for kind in (
        registry_errors.RegistryError,
        memgen_errors.MemgenError,
        SQLAlchemyError,
        RequestValidationError,
        HTTPException,
        ClientDisconnect,
    ):
        app.add_exception_handler(kind, _on_error)


async def _on_error(request: Request, error: Exception) -> Response:
    return answer(request, error)


def answer(request: Request, error: Exception) -> Response:
    """The answer to any error that a request ends in; logged if the fault is the server's."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=_CLIENT_GONE)  # nobody reads it; the status is for the log
    if isinstance(error, RequestValidationError):
        return _invalid_request(request, error.errors())
    if isinstance(error, HTTPException):
        detail = why_not_offered(request.scope["path"]) if error.status_code == 404 else None
        code = f"http_{error.status_code}"
        return problem(request, error.status_code, code, detail or str(error.detail), headers=error.headers)
    headers = {"Retry-After": str(error.retry_seconds)} if isinstance(error, registry_errors.Busy) else None
    return problem(request, *_described(request, error), headers=headers)


def described(request: Request, error: Exception) -> Described:
    """What `answer` would say, for a stream that has begun. Logged as it would be."""
    status, code, detail = _described(request, error)
    return Described(status, code, _shown(detail))


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """`code` is stable for programs, `detail` is for people.

    Args:
        param: the parameter at fault, on OpenAI's paths.
        more: further members of a problem+json.
    """
    headers = dict(headers or {})
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        headers["Retry-After"] = str(RETRY_SECONDS)
    detail = _shown(detail)
    if is_otlp_path(request.scope["path"]):
        return otlp_error(status, code, detail, request.headers, headers)
    if is_anthropic(request.scope["path"], request.headers):
        status = anthropic_status(status)
        return JSONResponse(anthropic_error(status, code, detail), status, headers=headers)
    if is_openai_path(request.scope["path"]):
        status = openai_status(status)
        return JSONResponse(openai_error(status, code, detail, param, request.scope["path"]), status, headers=headers)
    body = {
        "type": f"urn:memgen:problem:{code}",
        "title": code.replace("_", " "),
        "status": status,
        "detail": detail,
    }
    return JSONResponse({**body, **more}, status, headers=headers, media_type="application/problem+json")


def _described(request: Request, error: Exception) -> tuple[int, str, str]:
    """Status, code and detail of an error of the service's own, or of what HTTP has a word for."""
    if isinstance(error, HTTPException):
        return error.status_code, f"http_{error.status_code}", str(error.detail)
    if isinstance(error, SQLAlchemyError):
        error = domain_error(error) or error
    if not isinstance(error, registry_errors.RegistryError | memgen_errors.MemgenError):
        log.error("unexpected error", path=request.url.path, exc_info=error)
        return 500, *_BUG
    status = status_of(error)
    if status >= 500:
        # Another server's trouble is no fault of this code, which a traceback would be for.
        is_ours = not isinstance(error, registry_errors.OutboundFailed | registry_errors.OutboundTimedOut)
        log.error("request failed", path=request.url.path, error=str(error), exc_info=error if is_ours else None)
    return status, code_of(error), own_words(request.scope["path"], str(error))


def _invalid_request(request: Request, found: Sequence[Any]) -> Response:
    shown = [
        {"place": ".".join(str(part)[:60] for part in each["loc"]), "message": each["msg"], **_got(each)}
        for each in found[:_SHOWN_ERRORS]
    ]
    detail = "; ".join(
        f"{each['place']}: {each['message']}" + (f", got {each['got']}" if "got" in each else "") for each in shown
    )
    if len(found) > len(shown):
        detail += f"; and {len(found) - len(shown)} more"
    if is_openai_path(request.scope["path"]):
        code, param = openai_invalid_code(found[0]), openai_param(found[0]["loc"])
        return problem(request, 422, code, detail, param=param)
    errors = [{name: _shown(text) for name, text in each.items()} for each in shown]
    return problem(request, 422, "invalid_request", detail, errors=errors)


def _got(error: Mapping[str, Any]) -> dict[str, str]:
    """What was sent at the place, shortened; nothing where something is missing."""
    return {} if error["type"] in ("missing", "json_invalid") else {"got": show(error.get("input"))}


def _shown(text: str) -> str:
    """The text as it may leave the service: of bounded length, without keys, and always encodable."""
    if len(text) > _SHOWN_CHARACTERS:
        text = f"{text[: _SHOWN_CHARACTERS // 2]} … {text[-_SHOWN_CHARACTERS // 2 :]}"
    return _KEY.sub(r"\1…", text).encode("utf-8", "backslashreplace").decode()
