"""`client.routes`: how an adapter's traffic is shared among versions, and what that has shown."""

from typing import Literal, Unpack

from memgen_client.answers import one, page
from memgen_client.calls import Call, ModeT, Noun, Pages, keyed, many, once
from memgen_client.models.routes import Route, RouteDetail, RouteResults
from memgen_client.models.rows import Page
from memgen_client.options import RouteTerms
from memgen_client.paths import path


class Routes(Noun[ModeT]):
    @once
    def create(
        self,
        adapter: str,
        kind: Literal["ab", "canary", "shadow"],
        *,
        idempotency_key: str | None = None,
        **terms: Unpack[RouteTerms],
    ) -> Call[Route]:
        """Start a route; requests for the model `adapter` go by it from the next one on."""
        body = {"kind": kind, **terms}
        return Call("POST", _path(adapter), one(Route), body=body, headers=keyed(idempotency_key))

    @once
    def list(self, adapter: str, *, limit: int = 50, cursor: str | None = None) -> Call[Page[Route]]:
        """A page, newest first."""
        return _routes(adapter).at(cursor, limit)

    @many
    def all(self, adapter: str) -> Pages[Route]:
        """Every route, newest first."""
        return Pages(_routes(adapter))

    @once
    def get(self, adapter: str, number: int) -> Call[RouteDetail]:
        """The route with its history."""
        return Call("GET", _path(adapter, number), one(RouteDetail))

    @once
    def end(self, adapter: str, number: int, *, reason: str = "") -> Call[RouteDetail]:
        """From the next request on everything goes to the champion."""
        body = {"state": "ended", "reason": reason}
        return Call("PATCH", _path(adapter, number), one(RouteDetail), body=body)

    @once
    def results(self, adapter: str, number: int) -> Call[RouteResults]:
        """Look as often as you like: the verdicts allow for it."""
        return Call("GET", _path(adapter, number, "results"), one(RouteResults))


def _path(adapter: str, *parts: str | int) -> str:
    return path("adapters", adapter, "routes", *parts)


def _routes(adapter: str) -> Call[Page[Route]]:
    return Call("GET", _path(adapter), page(Route))
