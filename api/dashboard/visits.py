"""A visit: a request of a browser whose user is signed in. Cookies, and the proof that a form came from our page.

The cookie is HttpOnly and SameSite=Lax and holds a token that stands for an API key (`registry.sign_ins`). A form
carries a second token that only our pages can know, because it follows from the cookie, which no script can read.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.dashboard.forms import Fields, Form, Refusal, WrongField
from registry.database import reading
from registry.errors import ForgedForm, Invalid, InvalidJson, SignInEnded
from registry.json_text import is_storable, parse_json
from registry.keys import Principal
from registry.sign_ins import signed_in
from registry.wiring import Services

HOME = "/ui"
COOKIE = "memgen_sign_in"
_NOTICE_COOKIE = "memgen_notice"
_NOTICE_SECONDS = 30
_MOST_FIELDS = 200
CSRF_FIELD = "csrf"
CSRF_HEADER = "X-Csrf"
"""Where a script of ours sends what a form has in its field."""

Known = TypeVar("Known", bound=str)


@dataclass(frozen=True)
class Visit:
    """What a page knows of who asks for it."""

    request: Request
    services: Services
    caller: Principal
    token: str
    fields: Fields = field(default_factory=dict)
    """The fields of the form that was sent."""
    refusal: Refusal | None = None
    """Why it was refused, where its page is shown again."""

    def form(self, path: str, name: str) -> Form:
        """The form of a page that is sent to `path` of the dashboard: as it was sent, if it was refused.

        Args:
            name: what the ids of its fields begin with.
        """
        action = f"{HOME}{path}"
        if self.refusal is None or self.refusal.action != action:
            return Form(action, name)
        return Form(action, name, self.fields, self.refusal.problems)

    def may(self, scope: str) -> bool:
        """Whether the caller's key has the scope: what it may not do is not shown."""
        return bool({scope, "admin"} & self.caller.scopes)

    @cached_property
    def csrf(self) -> str:
        return csrf_of(self.token)

    def text(self, name: str) -> str:
        """A field of the form; empty where it was left out."""
        return self.fields.get(name, "").strip()

    def number(self, name: str) -> int | None:
        """A field that holds a whole number; None where it was left empty.

        Raises:
            WrongField: it holds something else.
        """
        text = self.text(name)
        if not text:
            return None
        if not (text.isascii() and text.isdigit()) or len(text) > 9:
            raise WrongField(name, f"{name} is {text[:60]!r}; expected a whole number")
        return int(text)

    def share(self, name: str) -> float | None:
        """A field that holds a number such as 0.25; None where it was left empty.

        Raises:
            WrongField: it holds something else.
        """
        text = self.text(name)
        try:
            return float(text) if text else None
        except ValueError as error:
            raise WrongField(name, f"{name} is {text[:60]!r}; expected a number such as 0.25") from error

    def pairs(self, name: str) -> dict[str, Any]:
        """A field that holds settings such as `learning_rate=0.002 batch_size=4`: JSON where it can be, else text.

        Raises:
            WrongField: it holds something else.
        """
        return dict(_read_pair(name, pair) for pair in self.text(name).split())

    def lines(self, name: str) -> dict[str, Any]:
        """As `pairs`, one on a line: a value may have spaces in it.

        Raises:
            WrongField: it holds something else.
        """
        lines = (line.strip() for line in self.text(name).split("\n"))
        return dict(_read_pair(name, line) for line in lines if line)


def one_of(text: str, known: Iterable[Known]) -> Known | None:
    """The one of the known values that is written so; None where none is."""
    return next((each for each in known if each == text), None)


def _read_pair(name: str, pair: str) -> tuple[str, Any]:
    key, separator, text = pair.partition("=")
    if not separator or not key:
        raise WrongField(name, f"{name} has {pair[:60]!r}; expected key=value, such as learning_rate=0.002")
    try:
        return key, parse_json(text)
    except InvalidJson:
        return key, text


def admit(request: Request, services: Services, fields: Fields, scope: str | None) -> Visit:
    """The visit of a request.

    Args:
        scope: what the key must have; None where any key will do.

    Raises:
        SignInEnded: nobody is signed in.
        ForgedForm: a form that did not come from a page of this service.
        MissingScope: the key may not do this.
    """
    if request.method == "POST":
        # Before it is asked who sends it: a form that comes without a sign-in is kept, and another site's must not be.
        check_origin(request)
    token = request.cookies.get(COOKIE, "")
    if not token:
        raise SignInEnded("you are not signed in; sign in with an API key")
    with reading(services.sessions) as session:
        caller = signed_in(session, token)
    if request.method == "POST" and not _is_proof(fields.get(CSRF_FIELD, ""), token):
        raise ForgedForm("the form was made for another sign-in; reload the page and send it again")
    if scope is not None:
        caller.check(scope)
    return Visit(request, services, caller, token, fields)


async def admit_script(request: Request, scope: str) -> Visit:
    """As `admit`, for a request that a script of ours sends, whose body is no form."""
    fields = {CSRF_FIELD: request.headers.get(CSRF_HEADER, "")}
    return await run_in_threadpool(admit, request, request.app.state.services, fields, scope)


def check_origin(request: Request) -> None:
    """Refuse a form that another site's page sent.

    Browsers say so by `Sec-Fetch-Site`; those from before 2023 by `Origin`, which is compared with our own address.

    Raises:
        ForgedForm: it comes from elsewhere.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    elsewhere = site not in ("same-origin", "none") if site else False
    if not site and origin:
        elsewhere = origin.partition("://")[2] != request.headers.get("host")
    if elsewhere:
        raise ForgedForm("the form was sent by a page of another site; open the dashboard itself")


def csrf_of(token: str) -> str:
    return hmac.new(token.encode(), b"form", hashlib.sha256).hexdigest()


def _is_proof(sent: str, token: str) -> bool:
    return hmac.compare_digest(sent.encode(), csrf_of(token).encode())


async def read_fields(request: Request) -> Fields:
    """The fields of a form; the last of two counts. The body's length is limited before it is read.

    Raises:
        Invalid: no form, too many fields, or a text that no row can hold.
    """
    try:
        text = (await request.body()).decode()
        fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError as error:
        raise Invalid(f"the form can't be read ({error}); reload the page and send it again") from error
    if not all(is_storable(value) for pair in fields.items() for value in pair):
        raise Invalid("the form holds a NUL character or half of a surrogate pair; remove it")
    return fields


def is_secure(request: Request) -> bool:
    return request.url.scheme == "https"


def go(visit: Visit, path: str, notice: str = "") -> Response:
    """Lead the browser to a page, which shows `notice` once: a reload there repeats nothing."""
    answer = RedirectResponse(path, status_code=303)
    if notice:
        answer.set_cookie(
            _NOTICE_COOKIE,
            quote(notice),
            max_age=_NOTICE_SECONDS,
            path=HOME,
            httponly=True,
            samesite="lax",
            secure=is_secure(visit.request),
        )
    return answer


def drop_notice(request: Request, answer: Response) -> None:
    """Let what was said be said once."""
    if _NOTICE_COOKIE in request.cookies:
        answer.delete_cookie(_NOTICE_COOKIE, path=HOME, httponly=True, samesite="lax", secure=is_secure(request))


def notice_of(request: Request) -> str:
    return unquote(request.cookies.get(_NOTICE_COOKIE, ""))[:500]


def own_path(path: str) -> str:
    """`path` if it is one of the dashboard's, else its first page: nobody is led elsewhere after a sign-in."""
    before_query = path.partition("?")[0]
    inside = before_query == HOME or before_query.startswith(f"{HOME}/")
    return path if inside and "\\" not in path else HOME
