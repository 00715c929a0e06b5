"""`client.tasks`: named domains with a grader and held-out items."""

from typing import Any

from api.client.noun import Noun
from api.client.paths import task_path
from api.http.json_object import JsonObject, JsonObjects


class Tasks(Noun):
    def create(
        self,
        name: str,
        *,
        grader: JsonObject | None = None,
        holdout_share: float | None = None,
        shared_turns: int = 0,
        description: str = "",
    ) -> JsonObject:
        """`grader` is `{"kind": ..., **options}`; without one the task is scored by held-out token loss."""
        body: JsonObject = {
            "name": name,
            "description": description,
            "holdout_share": holdout_share,
            "shared_turns": shared_turns,
        }
        return self._connection.send("POST", "/v1/tasks", body | ({"grader": grader} if grader else {}))

    def change(self, name: str, **options: Any) -> JsonObject:
        """Options: `judge`, the name of the judge of its new trajectories, or None for none; `judge_rewards`, `fill` or
        `apart`."""
        return self._connection.send("PATCH", task_path(name), options)

    def list(self) -> JsonObjects:
        return self._connection.data("/v1/tasks")
