"""The client's calls on schedules; `api.client.client.Client` has them as its own."""

from typing import Any
from urllib.parse import quote

from api.client.connection import Connection, JsonObject


class ScheduleCalls:
    _connection: Connection

    def create_schedule(
        self, name: str, adapter: str, task: str, *, idempotency_key: str | None = None, **options: Any
    ) -> JsonObject:
        """Options: one of `cron` (with `time_zone`), `new_trajectories`, `idle_hours`; `training`, `min_reward`,
        `promote` as of `train`."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        body = {"name": name, "adapter": adapter, "task": task, **options}
        return self._connection.send("POST", "/v1/schedules", body, headers=headers)

    def list_schedules(self) -> list[JsonObject]:
        """With their next runs."""
        data: list[JsonObject] = self._connection.send("GET", "/v1/schedules")["data"]
        return data

    def schedule(self, name: str) -> JsonObject:
        return self._connection.send("GET", _schedule(name))

    def change_schedule(self, name: str, **options: Any) -> JsonObject:
        """Options: as of `create_schedule`, and `paused`."""
        return self._connection.send("PATCH", _schedule(name), options)

    def delete_schedule(self, name: str) -> JsonObject:
        return self._connection.send("DELETE", _schedule(name))

    def schedule_runs(self, name: str, *, limit: int = 50, cursor: str | None = None) -> JsonObject:
        """A page, newest first: jobs started, and why none was; `next_cursor` for the next one."""
        params: JsonObject = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        return self._connection.send("GET", f"{_schedule(name)}/runs", params=params)

    def schedule_history(self, name: str) -> list[JsonObject]:
        """Who changed it, oldest first."""
        data: list[JsonObject] = self._connection.send("GET", f"{_schedule(name)}/history")["data"]
        return data


def _schedule(name: str) -> str:
    return f"/v1/schedules/{quote(name, safe='')}"
