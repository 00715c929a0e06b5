"""From errors to HTTP: RFC 9457 problem+json, or OpenAI's error shape under the OpenAI paths."""

from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import memgen.errors as memgen_errors
import registry.errors as registry_errors

log = structlog.get_logger()

STATUS: dict[type[Exception], int] = {
    registry_errors.RegistryError: 500,
    registry_errors.NotFound: 404,
    registry_errors.Conflict: 409,
    registry_errors.Invalid: 422,
    registry_errors.Forbidden: 403,
    registry_errors.UnknownKey: 401,
    registry_errors.UnreadableRow: 500,
    registry_errors.Unavailable: 503,
    memgen_errors.MemgenError: 500,
    memgen_errors.ModelError: 500,
    memgen_errors.ModelNotFound: 503,
    memgen_errors.BaseRefused: 503,
    memgen_errors.ChatTemplateError: 422,
    memgen_errors.ConfigError: 422,
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
_OPENAI_PATHS = ("/v1/chat/", "/v1/models")
_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def status_of(error: Exception) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def install(app: FastAPI) -> None:
    app.add_exception_handler(registry_errors.RegistryError, _on_domain_error)
    app.add_exception_handler(memgen_errors.MemgenError, _on_domain_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_bug)


def problem(request: Request, status: int, code: str, detail: str, **more: Any) -> JSONResponse:
    """`code` is stable for programs, `detail` is for people."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if request.url.path.startswith(_OPENAI_PATHS):
        return JSONResponse(_openai_error(status, code, detail), status, headers=headers)
    body = {
        "type": f"urn:memgen:problem:{code}",
        "title": code.replace("_", " "),
        "status": status,
        "detail": detail,
    }
    return JSONResponse({**body, **more}, status, headers=headers, media_type="application/problem+json")


def streamed_problem(request: Request, error: Exception) -> dict[str, Any]:
    """What `install` would answer to `error`, for a stream in OpenAI's format that has begun. Logged as it would be."""
    if isinstance(error, registry_errors.RegistryError | memgen_errors.MemgenError):
        return _openai_error(_logged_status(request, error), code_of(error), str(error))
    _log_bug(request, error)
    return _openai_error(500, *_BUG)


def code_of(error: Exception) -> str:
    """An error's own code, or its class name: `StaleAlias` becomes `stale_alias`."""
    own = getattr(error, "code", None)
    if isinstance(own, str):
        return own
    name = type(error).__name__
    return "".join(f"_{c.lower()}" if c.isupper() and n else c.lower() for n, c in enumerate(name))


async def _on_domain_error(request: Request, error: Exception) -> JSONResponse:
    return problem(request, _logged_status(request, error), code_of(error), str(error))


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    errors = [{"place": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
    detail = "; ".join(f"{e['place']}: {e['message']}" for e in errors)
    return problem(request, 422, "invalid_request", detail, errors=errors)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    return problem(request, error.status_code, f"http_{error.status_code}", str(error.detail))


async def _on_disconnect(request: Request, error: Exception) -> Response:
    """The client has gone; the status is for the log."""
    return Response(status_code=_CLIENT_GONE)


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    _log_bug(request, error)
    return problem(request, 500, *_BUG)


def _openai_error(status: int, code: str, detail: str) -> dict[str, Any]:
    kind = _OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": detail, "type": kind, "param": None, "code": code}}


def _logged_status(request: Request, error: Exception) -> int:
    status = status_of(error)
    if status >= 500:
        log.error("request failed", path=request.url.path, error=str(error), exc_info=error)
    return status


def _log_bug(request: Request, error: Exception) -> None:
    log.error("unexpected error", path=request.url.path, exc_info=error)
