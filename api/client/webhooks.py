"""`client.webhooks`: where a project's events are sent. Keys of scope `admin` only."""

from typing import Any

from api.client.noun import Noun
from api.client.paths import delivery_path, webhook_path
from api.http.json_object import JsonObject, JsonObjects


class Webhooks(Noun):
    def create(self, name: str, url: str, *, events: list[str] | None = None) -> JsonObject:
        """Its `secret` is in this reply and in no other. `events`: None for all."""
        body = {"name": name, "url": url, "events": events or []}
        return self._connection.send("POST", "/v1/webhooks", body)

    def list(self) -> JsonObjects:
        return self._connection.data("/v1/webhooks")

    def get(self, name: str) -> JsonObject:
        return self._connection.send("GET", webhook_path(name))

    def change(self, name: str, **options: Any) -> JsonObject:
        """Options: `url`, `events`, `enabled`."""
        return self._connection.send("PATCH", webhook_path(name), options)

    def delete(self, name: str) -> JsonObject:
        return self._connection.send("DELETE", webhook_path(name))

    def rotate(self, name: str, *, overlap_hours: float = 24.0) -> JsonObject:
        """A new `secret`, in this reply only; the former one signs beside it for `overlap_hours`."""
        return self._connection.send("POST", f"{webhook_path(name)}/rotate", {"overlap_hours": float(overlap_hours)})

    def test(self, name: str) -> JsonObject:
        """Queue an event `webhook.test`; the reply is its delivery."""
        return self._connection.send("POST", f"{webhook_path(name)}/test")

    def deliveries(
        self, name: str, *, state: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> JsonObject:
        """A page, newest first. `state`: `pending`, `delivered` or `given_up`."""
        return self._connection.page(f"{webhook_path(name)}/deliveries", state=state, limit=limit, cursor=cursor)

    def delivery(self, name: str, delivery_id: str) -> JsonObject:
        return self._connection.send("GET", delivery_path(name, delivery_id))

    def redeliver(self, name: str, delivery_id: str) -> JsonObject:
        """Send it again now, under the same message id."""
        return self._connection.send("POST", f"{delivery_path(name, delivery_id)}/redeliver")

    def redeliver_given_up(self, name: str) -> int:
        """Send all that were given up again. Returns how many."""
        return int(self._connection.send("POST", f"{webhook_path(name)}/redeliver")["redelivered"])
