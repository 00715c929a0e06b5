"""The client's calls on routes and feedback; `api.client.client.Client` has them as its own."""

from typing import Any
from urllib.parse import quote

from api.client.connection import Connection, JsonObject


class RouteCalls:
    _connection: Connection

    def start_route(self, adapter: str, kind: str, *, idempotency_key: str | None = None, **options: Any) -> JsonObject:
        """`kind` is ab, canary or shadow.

        Options: `arms` (of ab: `[{"version": 3, "weight": 0.5}, ...]`), `version` and `share` (of the others),
        `level`, `smallest_effect`, `reward_source`, `replace`, `reason`; of a canary `promotion` (never, better or
        non_inferior) and `margin`.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._connection.send("POST", _routes(adapter), {"kind": kind, **options}, headers=headers)

    def routes(self, adapter: str, *, limit: int = 50, cursor: str | None = None) -> JsonObject:
        """A page, newest first: `data`, and `next_cursor` for the next one."""
        params: JsonObject = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        return self._connection.send("GET", _routes(adapter), params=params)

    def route(self, adapter: str, number: int) -> JsonObject:
        """With its history."""
        return self._connection.send("GET", f"{_routes(adapter)}/{number}")

    def end_route(self, adapter: str, number: int, *, reason: str = "") -> JsonObject:
        return self._connection.send("PATCH", f"{_routes(adapter)}/{number}", {"state": "ended", "reason": reason})

    def route_results(self, adapter: str, number: int) -> JsonObject:
        return self._connection.send("GET", f"{_routes(adapter)}/{number}/results")

    def give_feedback(
        self, completion_id: str, reward: float, *, source: str = "user", comment: str = ""
    ) -> JsonObject:
        """`reward` from 0 to 1. Sending the same again is harmless; another one of the same source is refused."""
        body = {"completion_id": completion_id, "reward": float(reward), "source": source, "comment": comment}
        return self._connection.send("POST", "/v1/feedback", body)


def _routes(adapter: str) -> str:
    return f"/v1/adapters/{quote(adapter, safe='')}/routes"
