"""`client.jobs`: trainings and evaluations. A weaver's training is queued by `client.train`."""

from typing import Any

from api.client.deprecated import CalledAsMethod
from api.client.noun import Noun
from api.client.paths import job_path
from api.http.json_object import JsonObject, JsonObjects


class Jobs(Noun, CalledAsMethod):
    def train_trigger(
        self, adapter: str, parent: int, *, idempotency_key: str | None = None, **options: Any
    ) -> JsonObject:
        """Queue the training of a version's trigger. Options: `tasks` to play, `environment`, `training` (fields of
        TriggerConfig), `min_reward`, `promote`.
        """
        body = {"kind": "train_trigger", "adapter": adapter, "parent": parent, **options}
        return self._connection.send("POST", "/v1/jobs", body, idempotency_key=idempotency_key)

    def evaluate(self, adapter: str, version: int, *, idempotency_key: str | None = None) -> JsonObject:
        """Queue the evaluation of a version on the suites of all tasks that it learned."""
        body = {"kind": "evaluate", "adapter": adapter, "version": version}
        return self._connection.send("POST", "/v1/jobs", body, idempotency_key=idempotency_key)

    def list(self, *, limit: int = 50, cursor: str | None = None) -> JsonObject:
        """A page, newest first: `data`, and `next_cursor` for the next one."""
        return self._connection.page("/v1/jobs", limit=limit, cursor=cursor)

    def get(self, job_id: str) -> JsonObject:
        return self._connection.send("GET", job_path(job_id))

    def cancel(self, job_id: str) -> JsonObject:
        return self._connection.send("POST", f"{job_path(job_id)}/cancel")

    def events(self, job_id: str, *, after: int = 0, limit: int = 200) -> JsonObjects:
        """Oldest first, from the first one whose `seq` is greater than `after`."""
        return self._connection.data(f"{job_path(job_id)}/events", {"after": after, "limit": limit})
