"""`client.adapters`: named lineages of memories, their settings and scores."""

from typing import Any

from api.client.noun import Noun
from api.client.paths import adapter_path
from api.http.json_object import JsonObject, JsonObjects


class Adapters(Noun):
    def create(self, name: str, *, idempotency_key: str | None = None, **options: Any) -> JsonObject:
        """Options: `description`, `strategy`, `memory`, and the settings of `change`."""
        body = {"name": name, **options}
        return self._connection.send("POST", "/v1/adapters", body, idempotency_key=idempotency_key)

    def list(self) -> JsonObjects:
        return self._connection.data("/v1/adapters")

    def get(self, name: str) -> JsonObject:
        return self._connection.send("GET", adapter_path(name))

    def change(self, name: str, *, reason: str = "", **settings: Any) -> JsonObject:
        """Settings: `replay_share`, `gate_margin`, `gate_rule`, `gate_level`, `gate_settled`, `gate_gain`,
        `gate_policy`, `canary_share`, `canary_promotion`, `canary_margin`, `retry_replay_share` (None
        turns retries off)."""
        return self._connection.send("PATCH", adapter_path(name), {**settings, "reason": reason})

    def changes(self, name: str) -> JsonObjects:
        """Who changed which settings, oldest first."""
        return self._connection.data(f"{adapter_path(name)}/changes")

    def scores(self, adapter: str) -> JsonObject:
        """R with ACC, BWT, FWT and forgetting."""
        return self._connection.send("GET", f"{adapter_path(adapter)}/scores")
