"""`client.schedules`: what makes an adapter learn a task by itself."""

from typing import Any

from api.client.noun import Noun
from api.client.paths import schedule_path
from api.http.json_object import JsonObject, JsonObjects


class Schedules(Noun):
    def create(
        self, name: str, adapter: str, task: str, *, idempotency_key: str | None = None, **options: Any
    ) -> JsonObject:
        """Options: `cron` (with `time_zone`) or `idle_hours`, each with `new_trajectories` or without; `training`,
        `min_reward` and `promote` as for `client.train`."""
        body = {"name": name, "adapter": adapter, "task": task, **options}
        return self._connection.send("POST", "/v1/schedules", body, idempotency_key=idempotency_key)

    def list(self) -> JsonObjects:
        """All schedules with their next runs."""
        return self._connection.data("/v1/schedules")

    def get(self, name: str) -> JsonObject:
        return self._connection.send("GET", schedule_path(name))

    def change(self, name: str, **options: Any) -> JsonObject:
        """Options: those of `create`, and `paused`."""
        return self._connection.send("PATCH", schedule_path(name), options)

    def delete(self, name: str) -> JsonObject:
        return self._connection.send("DELETE", schedule_path(name))

    def runs(self, name: str, *, limit: int = 50, cursor: str | None = None) -> JsonObject:
        """A page, newest first: jobs started, and why none was; `next_cursor` for the next one."""
        return self._connection.page(f"{schedule_path(name)}/runs", limit=limit, cursor=cursor)

    def history(self, name: str) -> JsonObjects:
        """Who changed it, oldest first."""
        return self._connection.data(f"{schedule_path(name)}/history")
