"""`client.loops`: recording, rewards, schedule, gate, canary and promotion of one adapter, as one thing."""

from typing import Any

from api.client.noun import Noun
from api.client.paths import loop_path
from api.http.json_object import JsonObject, JsonObjects


class Loops(Noun):
    def create(self, adapter: str, task: str, **options: Any) -> JsonObject:
        """Set it up; `setup` in the reply says what was made, changed or kept. Again it is harmless.

        Options: `create` (make the adapter and the task); `every` (`night`, `6h`, a cron expression) with `time_zone`,
        or `idle_hours`; `after` (new trajectories), `training`, `min_reward`; `gate_margin`, `canary_share`,
        `canary_promotion`, `canary_margin`; `recording` (`off`, `asked`, `all`), `recording_share`,
        `run_idle_seconds`; `judge`; `keep_last`, `quiet_hours`, `most_failures`; with `create` also `grader`,
        `holdout_share` and `memory`.
        """
        return self._connection.send("POST", "/v1/loops", {"adapter": adapter, "task": task, **options})

    def list(self) -> JsonObjects:
        return self._connection.data("/v1/loops")

    def get(self, name: str) -> JsonObject:
        """What it did in the last day, week and in all, what waits, and why not."""
        return self._connection.send("GET", loop_path(name))

    def pause(self, name: str) -> JsonObject:
        """Start no more trainings until it is resumed."""
        return self._connection.send("POST", f"{loop_path(name)}/pause")

    def resume(self, name: str) -> JsonObject:
        """Let it go on; failures and silences are counted anew."""
        return self._connection.send("POST", f"{loop_path(name)}/resume")

    def delete(self, name: str) -> JsonObject:
        """`stays` in the reply says what is left."""
        return self._connection.send("DELETE", loop_path(name))

    def history(self, name: str, *, limit: int = 50, cursor: str | None = None) -> JsonObject:
        """A page of its changes, newest first; `next_cursor` for the next one."""
        return self._connection.page(f"{loop_path(name)}/history", limit=limit, cursor=cursor)
