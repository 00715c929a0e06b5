"""`client.gates`: verdicts on versions, item by item, and a person's decision on one that waits."""

from api.client.noun import Noun
from api.client.paths import version_path
from api.http.json_object import JsonObject


class Gates(Noun):
    def get(self, adapter: str, version: int) -> JsonObject:
        """The verdict, its reasons, and the evidence on every task."""
        return self._connection.send("GET", f"{version_path(adapter, version)}/gate")

    def run(self, adapter: str, version: int) -> JsonObject:
        """Queue a job that judges a version whose own job failed before its gate had run."""
        return self._connection.send("POST", f"{version_path(adapter, version)}/gate")

    def items(
        self,
        adapter: str,
        version: int,
        task: str,
        *,
        flipped: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JsonObject:
        """A page of what champion and candidate answered: `data`, `next_cursor`. `flipped`: better, worse or any."""
        path = f"{version_path(adapter, version)}/gate/items"
        return self._connection.page(path, task=task, flipped=flipped, limit=limit, cursor=cursor)

    def approve(self, adapter: str, version: int, *, reason: str = "", expected: int | None = None) -> JsonObject:
        """Make a version that waits the champion.

        Args:
            expected: as for `client.promote`; by default the champion that the gate compared with.
        """
        body = {"reason": reason, "expected_version": expected}
        return self._connection.send("POST", f"{version_path(adapter, version)}/gate/approve", body)

    def reject(self, adapter: str, version: int, *, reason: str = "") -> JsonObject:
        """Turn a version that waits down, for good."""
        return self._connection.send("POST", f"{version_path(adapter, version)}/gate/reject", {"reason": reason})
