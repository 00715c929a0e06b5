"""What is decided about a request before its body is read: whether the path takes it, who sends it, how much may come.

Nothing of this costs more than the request's head. A body is read only for a caller that is known, up to the limit of
its route, and a JSON body is checked here once for all routes. Knows the routes only by what they ask for.
"""

from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote_plus

import anyio
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.anthropic_errors import is_anthropic, is_anthropic_path
from api.http.deps import RequiredScope
from api.http.exchange import Exchange, HeadIsAnswered
from api.http.openai_errors import is_openai_path
from api.http.otlp_errors import is_otlp_path
from api.http.problems import answer
from registry.database import reading
from registry.errors import InvalidJson, UnknownKey
from registry.json_text import canonical_json, is_storable, parse_json
from registry.keys import Principal, authenticate
from registry.settings import Settings
from registry.wiring import Services

LIMITS = {
    "/v1/chat/completions": "max_chat_bytes",
    "/v1/completions": "max_chat_bytes",
    "/v1/messages": "max_chat_bytes",
    "/v1/messages/count_tokens": "max_chat_bytes",
    "/v1/responses": "max_chat_bytes",
    "/v1/traces": "max_traces_bytes",
    "/v1/trajectories": "max_trajectory_bytes",
    "/v1/trajectories/import": "max_import_bytes",
    "/v1/adapters/{name}/versions/import": "max_archive_bytes",
    "/ui/trajectories/import": "max_import_bytes",
    "/ui/playground/answer": "max_chat_bytes",
}
"""The setting that limits a body, by path; the others have `max_json_bytes`."""

Refuse = Callable[[Request, Exception], Awaitable[ASGIApp | None]]
"""What answers a request that is refused; None lets a problem say it."""
_KEY_LOOKUPS = 8
"""Look-ups of keys at once, in threads of their own: requests without a good key must not take the endpoints'."""
_PARSED_HERE_BYTES = 65_536
"""JSON up to this length is parsed in the event loop, which is quicker than to hand it to a thread."""


@dataclass(frozen=True)
class _Terms:
    """What a route asks of its requests."""

    route: Route
    scopes: frozenset[str]
    """Scopes that the caller's key must have; none where no key is needed."""
    limit: int
    """Most bytes of a body."""
    setting: str
    """Name of the setting that the limit is."""
    takes_json: bool

    @cached_property
    def methods(self) -> frozenset[str]:
        return frozenset(self.route.methods or ())


class BeforeBody:
    """Middleware: 404, 405, OPTIONS, HEAD, 401, 403, 413, 415 and broken JSON are answered here for every route."""

    def __init__(
        self, app: ASGIApp, *, routes: Sequence[BaseRoute], settings: Settings, refuse: Refuse | None = None
    ) -> None:
        """
        Args:
            refuse: makes what a refused request is answered, if it is not to be a problem.
        """
        self._app, self._refuse = app, refuse
        self._terms = [_terms(route, settings) for route in routes if isinstance(route, Route)]
        self._lookups = anyio.CapacityLimiter(_KEY_LOOKUPS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send)
        if scope["method"] == "HEAD":
            # Every GET answers HEAD too; the exchange leaves the body out.
            scope = {**scope, "method": "GET", "state": {**scope.get("state", {}), "is_head": True}}
        response: ASGIApp | None
        try:
            response = await self._admit(scope, exchange)
        except Exception as error:
            request = Request(scope)
            response = (await self._refuse(request, error) if self._refuse else None) or answer(request, error)
        with suppress(HeadIsAnswered):
            await (response or self._app)(scope, exchange.receive, exchange.send)

    async def _admit(self, scope: Scope, exchange: Exchange) -> Response | None:
        """None lets the application answer. Raises what is answered instead."""
        headers = Headers(scope=scope)
        _check_texts(scope, headers)
        terms = self._find(scope)
        if isinstance(terms, Response):
            return terms
        if terms is None:
            return None  # the router answers with 404, or leads from `path/` to `path`
        if terms.scopes:
            caller = await self._authenticate(scope, headers)
            for needed in terms.scopes:
                caller.check(needed)
            scope.setdefault("state", {})["caller"] = caller
        exchange.allow(_declared_length(headers), terms.limit, terms.setting)
        if terms.takes_json:
            # What a chat says is not stored, and a model may say NUL: its answers come back as history.
            await _check_json(headers, exchange, nul=_is_chat(scope["path"]))
        return None

    def _find(self, scope: Scope) -> _Terms | Response | None:
        if scope["path"] == "*":
            return Response(status_code=204, headers={"Allow": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"})
        matching = []
        for terms in self._terms:
            match, _ = terms.route.matches(scope)
            if match is Match.FULL:
                return terms
            if match is Match.PARTIAL:
                matching.append(terms)
        if not matching:
            return None
        allowed = _allowed(matching)
        if scope["method"] == "OPTIONS":
            return Response(status_code=204, headers={"Allow": allowed})
        raise HTTPException(
            405, f"{scope['method']} is not allowed on this path; it takes {allowed}", headers={"Allow": allowed}
        )

    async def _authenticate(self, scope: Scope, headers: Headers) -> Principal:
        kind, _, key = headers.get("Authorization", "").partition(" ")
        key = key.strip()
        takes_both = is_otlp_path(scope["path"]) or is_anthropic(scope["path"], headers)
        beside = headers.get("x-api-key") if takes_both else None
        if (kind.lower() != "bearer" or not key) and beside:
            kind, key = "bearer", beside.strip()
        if kind.lower() != "bearer" or not key:
            raise UnknownKey("no API key was sent; send `Authorization: Bearer <key>`")
        services: Services = scope["app"].state.services
        return await anyio.to_thread.run_sync(_look_up, services, key, limiter=self._lookups)


def _is_chat(path: str) -> bool:
    """Whether the body is in another API's words, of which nothing is searched or compared in the database."""
    return is_openai_path(path) or is_anthropic_path(path)


def _terms(route: Route, settings: Settings) -> _Terms:
    setting = LIMITS.get(route.path, "max_json_bytes")
    api_route = route if isinstance(route, APIRoute) else None
    return _Terms(
        route=route,
        scopes=frozenset(_scopes(api_route.dependant)) if api_route else frozenset(),
        limit=getattr(settings, setting),
        setting=f"MEMGEN_{setting.upper()}",
        takes_json=api_route is not None and api_route.body_field is not None,
    )


def _scopes(dependant: Dependant) -> Iterable[str]:
    if isinstance(dependant.call, RequiredScope):
        yield dependant.call.scope
    for child in dependant.dependencies:
        yield from _scopes(child)


def _allowed(matching: Iterable[_Terms]) -> str:
    methods = {"OPTIONS"}.union(*(terms.methods for terms in matching))
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def _look_up(services: Services, key: str) -> Principal:
    # Its own short read: authentication must not hold a connection while the endpoint works.
    with reading(services.sessions) as session:
        return authenticate(session, key)


def _check_texts(scope: Scope, headers: Headers) -> None:
    """Refuse a text that no row can hold, wherever the request's head has one.

    Raises:
        HTTPException: it is in the path, so that there is nothing there.
        InvalidJson: it is in the query or a header.
    """
    if not is_storable(scope["path"]):
        raise HTTPException(404, "the path holds a NUL character; nothing is there")
    query = unquote_plus(scope["query_string"].decode("latin-1"))
    texts = {"query": query, **{f"header {name}": value for name, value in headers.items()}}
    for place, text in texts.items():
        if not is_storable(text):
            code = "nul_character" if "\0" in text else "lone_surrogate"
            raise InvalidJson(code, f"the {place} holds a NUL character or half of a surrogate pair; remove it")


def _declared_length(headers: Headers) -> int | None:
    """Raises HTTPException: no number of bytes, or two."""
    declared = set(headers.getlist("content-length"))
    if not declared:
        return None
    length = declared.pop()
    # HTTP's digits are ASCII's; int() would take a sign, spaces and other scripts too.
    if declared or not (length.isascii() and length.isdigit()) or len(length) > 18:
        raise HTTPException(400, "Content-Length must be one number of bytes")
    return int(length)


async def _check_json(headers: Headers, exchange: Exchange, *, nul: bool) -> None:
    """Read the body and refuse what no route could use; the application reads it again from memory.

    Raises:
        HTTPException: another type or encoding, or too long.
        InvalidJson: what `registry.json_text` refuses.
    """
    if exchange.expects_body:
        if (encoding := headers.get("content-encoding", "identity").lower()) != "identity":
            raise HTTPException(415, f"Content-Encoding {encoding[:60]!r}; this path takes plain JSON only")
        if not _is_json(kind := headers.get("content-type", "")):
            got = f"got {kind[:60]!r}" if kind else "it is missing"
            raise HTTPException(415, f"Content-Type: {got}; expected application/json")
    body = await exchange.read_whole()
    if not body:
        return  # whether it may be empty is the route's to say
    if len(body) <= _PARSED_HERE_BYTES:
        _parse(body, nul)
    else:
        await anyio.to_thread.run_sync(_parse, body, nul)


def _parse(body: bytes, nul: bool) -> None:
    canonical_json(parse_json(body.removeprefix(BOM_UTF8)), nul=nul)


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
