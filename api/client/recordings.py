"""`client.recordings`: what is recorded of a project's answers, and the runs that were."""

from collections.abc import Iterator

from api.client.noun import Noun
from api.client.paths import recording_policy_path, run_path
from api.http.json_object import JsonObject


class Recordings(Noun):
    def get(self) -> JsonObject:
        """Policies, and how much was recorded, waits, and was not recorded by which reason."""
        return self._connection.send("GET", "/v1/recordings")

    def set_policy(
        self,
        mode: str,
        *,
        adapter: str | None = None,
        share: float = 1.0,
        task: str | None = None,
        idle_seconds: float | None = None,
    ) -> JsonObject:
        """Set the policy of the project, or of an adapter. `mode` is off, asked or all."""
        body = {"mode": mode, "share": share, "task": task, "idle_seconds": idle_seconds}
        return self._connection.send("PUT", recording_policy_path(adapter), body)

    def clear_policy(self, adapter: str) -> None:
        """Let the project's policy hold for an adapter again."""
        self._connection.send("DELETE", recording_policy_path(adapter))

    def runs(
        self,
        *,
        task: str | None = None,
        session_id: str | None = None,
        completion_id: str | None = None,
        state: str | None = None,
    ) -> Iterator[JsonObject]:
        """Runs, newest first. `state`: open, closing, closed or refused."""
        return self._connection.all_pages(
            "/v1/runs", task=task, session_id=session_id, completion_id=completion_id, state=state
        )

    def run(self, run_id: str) -> JsonObject:
        """A run with its messages, by its id or by the one that an answer's `memgen.recorded` named."""
        return self._connection.send("GET", run_path(run_id))
