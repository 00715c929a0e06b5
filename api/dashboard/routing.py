"""From functions that make pages to routes: who asks, with which scope, and what a page says when that is wrong."""

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec
from urllib.parse import urlencode, urlsplit

from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from api.dashboard.forms import Fields, Places, WrongField, refused
from api.dashboard.rendering import render
from api.dashboard.visits import COOKIE, CSRF_FIELD, HOME, Visit, admit, own_path, read_fields
from api.http.problems import described, status_of
from memgen.errors import MemgenError
from registry.database import reading
from registry.errors import Invalid, NotFound, RegistryError, SignInEnded
from registry.sign_ins import signed_in
from registry.wiring import Services

_Params = ParamSpec("_Params")
Page = Callable[Concatenate[Visit, _Params], Response]
_MOST_DIGITS = 9
"""Digits of the number of a version or a route."""


class Pages:
    """The pages of one noun. A page is a function of a visit and of what stands in its path."""

    def __init__(self) -> None:
        self.routes: list[Route] = []

    def get(self, path: str, *, scope: str = "read") -> Callable[[Page[_Params]], Page[_Params]]:
        return self._add(path, "GET", scope)

    def post(
        self, path: str, *, scope: str | None, again: Page[...] | None = None, places: Places | None = None
    ) -> Callable[[Page[_Params]], Page[_Params]]:
        """A form. It answers by `api.dashboard.visits.go`.

        Args:
            scope: what the key must have; None where any key will do.
            again: the page with the form, which is shown again if it is refused; without one the trouble has a page.
            places: the field that an error is about, where its class alone does not say so.
        """
        return self._add(path, "POST", scope, again, places)

    def _add(
        self, path: str, method: str, scope: str | None, again: Page[...] | None = None, places: Places | None = None
    ) -> Callable[[Page[_Params]], Page[_Params]]:
        def added(page: Page[_Params]) -> Page[_Params]:
            async def endpoint(request: Request) -> Response:
                fields: Fields = {}
                try:
                    if method == "POST":
                        fields = await read_fields(request)
                except Exception as error:  # whatever is wrong, a person sees a page
                    return await run_in_threadpool(trouble, request, fields, error)
                return await run_in_threadpool(_answer, page, scope, request, fields, again, places)

            name = f"dashboard.{page.__module__.rpartition('.')[2]}.{page.__name__}"
            self.routes.append(Route(f"{HOME}{path}", endpoint, methods=[method], name=name))
            return page

        return added


def _answer(
    page: Page[Any],
    scope: str | None,
    request: Request,
    fields: Fields,
    again: Page[Any] | None,
    places: Places | None,
) -> Response:
    services: Services = request.app.state.services
    try:
        visit = admit(request, services, fields, scope)
        arguments = {name: _value(name, text) for name, text in request.path_params.items()}
        try:
            return page(visit, **arguments)
        except Exception as error:
            refusing = None if again is None else _refusing(visit, error, places or {})
            # A key that may write and not read sees no page for having sent nonsense.
            if again is None or refusing is None or not visit.may("read"):
                raise
            return again(refusing, **arguments)
    except SignInEnded as error:
        return _sign_in_first(request, fields, error)
    except Exception as error:  # whatever is wrong, a person sees a page
        return trouble(request, fields, error)


def _refusing(visit: Visit, error: Exception, places: Places) -> Visit | None:
    """The visit as its form's page is to be shown again; None if what is wrong is nothing that a person typed."""
    spoken = in_words(error)
    if not isinstance(spoken, RegistryError | MemgenError) or not 400 <= status_of(spoken) < 500:
        return None
    found = described(visit.request, spoken)
    refusal = refused(visit.request.url.path, visit.fields, found.status, found.detail, error, places)
    return replace(visit, refusal=refusal)


def _value(name: str, text: str) -> str | int:
    """What stands in a path; `number` is a whole one. Starlette's own would read any number of digits."""
    if name != "number":
        return text
    if not (text.isascii() and text.isdigit()) or len(text) > _MOST_DIGITS:
        raise NotFound(f"there is nothing of the number {text[:60]!r}")
    return int(text)


def read_id(noun: str, text: str) -> uuid.UUID:
    """The id in a path. Raises NotFound: it is none, so that there is no such `noun`."""
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise NotFound(f"there is no {noun} {text[:60]!r}; ids look like {uuid.UUID(int=0)}") from error


def _sign_in_first(request: Request, fields: Fields, error: SignInEnded) -> Response:
    """A form that was sent too late is kept in the page, and may be sent after the sign-in."""
    if request.method == "GET":
        query = f"?{request.url.query}" if request.url.query else ""
        wanted = "" if request.url.path == HOME else own_path(request.url.path + query)
        return RedirectResponse(_with_next(wanted), status_code=303)
    return render(
        request,
        "sign_in.html",
        status=401,
        problem=str(error) if not request.cookies.get(COOKIE) else "Your sign-in has ended. What you sent is kept.",
        next=request.url.path,
        kept=_kept(fields),
    )


def _with_next(wanted: str) -> str:
    return f"{HOME}/sign-in" + (f"?{urlencode({'next': wanted})}" if wanted else "")


def trouble(request: Request, fields: Fields, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    found = described(request, in_words(error))
    return render(
        request,
        "trouble.html",
        visit=_visit_if_any(request),
        status=found.status,
        found=found,
        back=_page_before(request),
        sent={name: text for name, text in _kept(fields).items() if text},
    )


def _visit_if_any(request: Request) -> Visit | None:
    """For a page's head: the trouble may be that the database is away."""
    services: Services = request.app.state.services
    token = request.cookies.get(COOKIE, "")
    try:
        with reading(services.sessions) as session:
            return Visit(request, services, signed_in(session, token), token) if token else None
    except Exception:  # the page says what the trouble is without it
        return None


def _page_before(request: Request) -> str:
    """The page that a form was on; the dashboard's first where that is not known."""
    try:
        before = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return HOME
    return own_path(f"{before.path}?{before.query}" if before.query else before.path)


def _kept(fields: Fields) -> Fields:
    return {name: text for name, text in fields.items() if name != CSRF_FIELD}


def in_words(error: Exception) -> Exception:
    """The error, or what a form's field or a body of the API's own says of a value that it can't take."""
    if isinstance(error, WrongField):
        return Invalid(str(error))
    if not isinstance(error, ValidationError):
        return error
    faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:5])
    return Invalid("; ".join(faults))
