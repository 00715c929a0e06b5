"""`client.trajectories`: what was uploaded, and where it went. The upload itself is `client.upload`."""

from collections.abc import Iterator
from typing import Any

from api.client.deprecated import CalledAsMethod
from api.client.noun import Noun
from api.client.paths import trajectory_path
from api.http.json_object import JsonObject


class Trajectories(Noun, CalledAsMethod):
    def list(self, *, task: str | None = None, held_out: bool | None = None, **wanted: Any) -> Iterator[JsonObject]:
        """All of them with their messages, in order of arrival, fetched page by page.

        Args:
            wanted: `session_id`, `reward_source`, `rewarded` (whether they have a reward), `min_reward`, `max_reward`.
        """
        filters = {"task": task, "held_out": held_out, **wanted}
        yield from self._connection.all_pages("/v1/trajectories", include_messages=True, **filters)

    def get(self, trajectory: str) -> JsonObject:
        """One with its messages, and all `rewards` that it was given."""
        return self._connection.send("GET", trajectory_path(trajectory))

    def lineage(self, trajectory: str) -> JsonObject:
        """The suites, datasets and versions that the trajectory of this id went to, and what serves them."""
        return self._connection.send("GET", f"{trajectory_path(trajectory)}/lineage")
