"""The client's calls on gates, adapters' settings, and where aliases stood; the class `Client` has them as its own."""

from typing import Any
from urllib.parse import quote

from api.client.connection import Connection, JsonObject


class GateCalls:
    _connection: Connection

    def change_adapter(self, name: str, *, reason: str = "", **settings: Any) -> JsonObject:
        """Settings: `replay_share`, `gate_margin`, `gate_rule`, `gate_level`, `gate_policy`, `canary_share`,
        `canary_promotion`, `canary_margin`, `retry_replay_share` (None turns retries off)."""
        return self._connection.send("PATCH", _adapter(name), {**settings, "reason": reason})

    def adapter_changes(self, name: str) -> list[JsonObject]:
        """Who changed which settings; oldest first."""
        data: list[JsonObject] = self._connection.send("GET", f"{_adapter(name)}/changes")["data"]
        return data

    def gate(self, adapter: str, version: int) -> JsonObject:
        """The verdict, its reasons, and the evidence on every task."""
        return self._connection.send("GET", _gate(adapter, version))

    def gate_items(
        self,
        adapter: str,
        version: int,
        task: str,
        *,
        flipped: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JsonObject:
        """A page of what champion and candidate answered: `data`, `next_cursor`. `flipped`: better, worse or any."""
        chosen: JsonObject = {"task": task, "flipped": flipped, "limit": limit, "cursor": cursor}
        params = {name: value for name, value in chosen.items() if value is not None}
        return self._connection.send("GET", f"{_gate(adapter, version)}/items", params=params)

    def approve(self, adapter: str, version: int, *, reason: str = "", expected: int | None = None) -> JsonObject:
        """Make a version that waits the champion. `expected`: as of `promote`; the gate's champion if not given."""
        body = {"reason": reason, "expected_version": expected}
        return self._connection.send("POST", f"{_gate(adapter, version)}/approve", body)

    def reject(self, adapter: str, version: int, *, reason: str = "") -> JsonObject:
        """Turn a version that waits down, for good."""
        return self._connection.send("POST", f"{_gate(adapter, version)}/reject", {"reason": reason})

    def alias_at(self, adapter: str, alias: str = "champion", *, at: str | None = None) -> JsonObject:
        """Which version the alias named at a time (ISO 8601 with its zone), or names now."""
        params = {"at": at} if at else None
        return self._connection.send("GET", f"{_adapter(adapter)}/aliases/{quote(alias, safe='')}", params=params)


def _adapter(name: str) -> str:
    return f"/v1/adapters/{quote(name, safe='')}"


def _gate(adapter: str, version: int) -> str:
    return f"{_adapter(adapter)}/versions/{version}/gate"
