"""`client.routes`: how an adapter's traffic is shared among versions, and what that has shown."""

from typing import Any

from api.client.deprecated import CalledAsMethod
from api.client.noun import Noun
from api.client.paths import adapter_path, route_path
from api.http.json_object import JsonObject


class Routes(Noun, CalledAsMethod):
    def create(self, adapter: str, kind: str, *, idempotency_key: str | None = None, **options: Any) -> JsonObject:
        """`kind` is ab, canary or shadow.

        Options: `arms` (of ab: `[{"version": 3, "weight": 0.5}, ...]`), `version` and `share` (of the others),
        `level`, `smallest_effect`, `reward_source`, `replace`, `reason`; of a canary `promotion` (never, better or
        non_inferior) and `margin`.
        """
        body = {"kind": kind, **options}
        return self._connection.send("POST", f"{adapter_path(adapter)}/routes", body, idempotency_key=idempotency_key)

    def list(self, adapter: str, *, limit: int = 50, cursor: str | None = None) -> JsonObject:
        """A page, newest first: `data`, and `next_cursor` for the next one."""
        return self._connection.page(f"{adapter_path(adapter)}/routes", limit=limit, cursor=cursor)

    def get(self, adapter: str, number: int) -> JsonObject:
        """The route with its history."""
        return self._connection.send("GET", route_path(adapter, number))

    def end(self, adapter: str, number: int, *, reason: str = "") -> JsonObject:
        """From the next request on everything goes to the champion."""
        return self._connection.send("PATCH", route_path(adapter, number), {"state": "ended", "reason": reason})

    def results(self, adapter: str, number: int) -> JsonObject:
        return self._connection.send("GET", f"{route_path(adapter, number)}/results")
