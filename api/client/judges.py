"""`client.judges`: models with a rubric that score trajectories, and what they said."""

from typing import Any

from api.client.noun import Noun
from api.client.paths import judge_path
from api.http.json_object import JsonObject, JsonObjects


class Judges(Noun):
    def create(self, name: str, model: str, rubric: str, *, kind: str = "pointwise", **settings: Any) -> JsonObject:
        """`kind` is `pointwise` or `relative`. Settings: `scale`, `group_size`, `temperature`, `max_answer_tokens`,
        `max_characters`, `too_long`, `daily_calls`. Creating an equal one again is harmless.
        """
        body = {"name": name, "kind": kind, "model": model, "rubric": rubric, **settings}
        return self._connection.send("POST", "/v1/judges", body)

    def list(self) -> JsonObjects:
        return self._connection.data("/v1/judges")

    def get(self, name: str) -> JsonObject:
        """The judge, what it has judged, and how it agrees with rewards from elsewhere."""
        return self._connection.send("GET", judge_path(name))

    def change(self, name: str, *, daily_calls: int) -> JsonObject:
        """How many calls it may make in 24 hours by itself. All else of a judge stays."""
        return self._connection.send("PATCH", judge_path(name), {"daily_calls": daily_calls})

    def run(self, name: str, task: str, *, idempotency_key: str | None = None, **options: Any) -> JsonObject:
        """Queue a job that judges what waits in a task. Options: `max_calls`, `max_tokens`, `unrewarded`, `held_out`,
        `again`."""
        body = {"kind": "judge", "judge": name, "task": task, **options}
        return self._connection.send("POST", "/v1/jobs", body, idempotency_key=idempotency_key)

    def judgements(self, *, limit: int = 50, cursor: str | None = None, **filters: str) -> JsonObject:
        """A page, newest first. Filters: `judge`, `task`, `trajectory`, `state`."""
        return self._connection.page("/v1/judgements", limit=limit, cursor=cursor, **filters)
