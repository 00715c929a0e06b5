"""Signing in with an API key, signing out, and the files that pages need."""

from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from api.dashboard.forms import Fields
from api.dashboard.rendering import render, static_files
from api.dashboard.routing import Pages
from api.dashboard.visits import (
    COOKIE,
    HOME,
    Visit,
    check_origin,
    csrf_of,
    go,
    is_secure,
    own_path,
    read_fields,
)
from api.http.problems import described
from registry.database import transaction
from registry.sign_ins import sign_in, sign_out
from registry.wiring import Services

_FOREVER = "public, max-age=31536000, immutable"
_LATE, _KEPT = "late", "kept."
"""A field that says that a form is kept, which may have had no field of its own; what stands before the names of those
that it had."""

pages = Pages()


@pages.post("/sign-out", scope=None)
def leave(visit: Visit) -> Response:
    with transaction(visit.services.sessions) as session:
        sign_out(session, visit.token)
    answer = go(visit, f"{HOME}/sign-in")
    answer.delete_cookie(COOKIE, path=HOME)
    return answer


async def _form(request: Request) -> Response:
    wanted = own_path(request.query_params.get("next", HOME))
    return await run_in_threadpool(render, request, "sign_in.html", problem="", next=wanted, kept=None)


async def _send(request: Request) -> Response:
    try:
        fields = await read_fields(request)
    except Exception as error:  # whatever is wrong, a person sees a page
        return await run_in_threadpool(_again, request, {}, error)
    return await run_in_threadpool(_sign_in, request, fields)


def _sign_in(request: Request, fields: Fields) -> Response:
    services: Services = request.app.state.services
    wanted = own_path(fields.get("next", HOME))
    kept = _kept_of(fields)
    try:
        check_origin(request)
        with transaction(services.sessions) as session:
            token, ends_at = sign_in(session, fields.get("key", "").strip(), hours=services.settings.sign_in_hours)
    except Exception as error:  # whatever is wrong, a person sees a page
        return _again(request, fields, error)
    answer: Response = RedirectResponse(wanted, status_code=303)
    if kept is not None:
        answer = render(request, "kept_form.html", action=wanted, kept=kept, csrf=csrf_of(token))
    answer.set_cookie(
        COOKIE, token, expires=ends_at, path=HOME, httponly=True, samesite="lax", secure=is_secure(request)
    )
    return answer


def _again(request: Request, fields: Fields, error: Exception) -> Response:
    found = described(request, error)
    problem = "No such key, or it was revoked." if found.code == "unknown_key" else found.detail
    return render(
        request,
        "sign_in.html",
        status=found.status,
        problem=problem,
        next=own_path(fields.get("next", HOME)),
        kept=_kept_of(fields),
    )


def _kept_of(fields: Fields) -> Fields | None:
    """The fields of a form that came too late; None if there was none."""
    kept = {name.removeprefix(_KEPT): text for name, text in fields.items() if name.startswith(_KEPT)}
    return kept if _LATE in fields else None


async def _static(request: Request) -> Response:
    found = static_files().get(request.path_params["path"])
    if found is None:
        return Response("no such file; reload the page", 404, media_type="text/plain")
    content, kind = found
    return Response(content, media_type=kind, headers={"Cache-Control": _FOREVER})


routes = [
    Route(f"{HOME}/sign-in", _form, methods=["GET"], name="dashboard.sign_in.form"),
    Route(f"{HOME}/sign-in", _send, methods=["POST"], name="dashboard.sign_in.send"),
    Route(f"{HOME}/static/{{path:path}}", _static, methods=["GET"], name="dashboard.static"),
    *pages.routes,
]
