"""`client.deletions`: data removed for good, and how training anew without it goes."""

from api.client.deprecated import CalledAsMethod
from api.client.noun import Noun
from api.client.paths import deletion_path
from api.http.json_object import JsonObject

_DELETION_SECONDS = 600.0


class Deletions(Noun, CalledAsMethod):
    def create(
        self,
        scope: str,
        identifier: str,
        *,
        policy: str = "keep",
        reason: str = "",
        dry_run: bool = True,
        expected: int | None = None,
    ) -> JsonObject:
        """Delete data. By default a dry run.

        Args:
            scope: trajectory, session or user.
            policy: what becomes of versions that learned the data: keep, retrain or withdraw.
            expected: number of trajectories that the dry run showed; ApiError 409 if they are not as many.
        """
        body = {"scope": scope, "id": identifier, "policy": policy, "reason": reason, "dry_run": dry_run}
        body |= {"expected": expected}
        return self._connection.send("POST", "/v1/deletions", body, timeout=_DELETION_SECONDS)

    def list(self, *, limit: int = 50, cursor: str | None = None) -> JsonObject:
        """A page, newest first: `data`, and `next_cursor` for the next one."""
        return self._connection.page("/v1/deletions", limit=limit, cursor=cursor)

    def get(self, deletion: str) -> JsonObject:
        """`retrainings` in it says how the training of versions anew goes."""
        return self._connection.send("GET", deletion_path(deletion))
