"""`client.feedback`: what answers, runs, sessions and trajectories were worth, reported and read back."""

from collections.abc import Iterator
from typing import Any

from api.client.noun import Noun
from api.http.json_object import JsonObject


class FeedbackReports(Noun):
    def give(
        self,
        reward: float,
        *,
        completion: str | None = None,
        run: str | None = None,
        session: str | None = None,
        trajectory: str | None = None,
        source: str = "user",
        comment: str = "",
    ) -> JsonObject:
        """Report a reward from 0 to 1 of exactly one of them. Feedback on a run or a session closes it.

        The first reward of a source stands: sending the same again is harmless, another one is refused (409).
        """
        named = {"completion_id": completion, "run_id": run, "session_id": session, "trajectory_id": trajectory}
        body: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
        body |= {"reward": float(reward), "source": source, "comment": comment}
        return self._connection.send("POST", "/v1/feedback", body)

    def list(self, *, limit: int = 50, cursor: str | None = None, **wanted: Any) -> JsonObject:
        """A page, newest first: `data`, and `next_cursor` for the next one. `wanted` as for `all`."""
        return self._connection.page("/v1/feedback", limit=limit, cursor=cursor, **wanted)

    def all(self, **wanted: Any) -> Iterator[JsonObject]:
        """All of it, newest first, fetched page by page.

        Args:
            wanted: `search` (words of the comment), `source`, `completion_id`, `run_id`, `session_id`,
                `trajectory_id`, `min_reward`, `max_reward`.
        """
        return self._connection.all_pages("/v1/feedback", **wanted)
