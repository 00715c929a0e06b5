"""The client's calls on what is kept: lineage, comparison, tags, archive, retention, export, deletion, garbage.

`api.client.client.Client` has them as its own.
"""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from api.client.connection import Connection, JsonObject

_BLOCK_BYTES = 1_048_576
_LONG_SECONDS = 600.0


class KeepingCalls:
    _connection: Connection

    def version_lineage(self, adapter: str, number: int) -> JsonObject:
        return self._connection.send("GET", f"{_version(adapter, number)}/lineage")

    def trajectory_lineage(self, trajectory: str) -> JsonObject:
        return self._connection.send("GET", f"/v1/trajectories/{quote(trajectory, safe='')}/lineage")

    def version_history(self, adapter: str, number: int) -> list[JsonObject]:
        """Who tagged, archived, withdrew, purged, restored, exported or imported it, oldest first."""
        data: list[JsonObject] = self._connection.send("GET", f"{_version(adapter, number)}/history")["data"]
        return data

    def standings(self, adapter: str) -> list[JsonObject]:
        """Tags and state of every version, oldest first."""
        return list(self._connection.listed(f"{_adapter(adapter)}/standings"))

    def compare(self, adapter: str, left: int, right: int) -> JsonObject:
        params = {"left": left, "right": right}
        return self._connection.send("GET", f"{_adapter(adapter)}/comparison", params=params)

    def tag(self, adapter: str, number: int, label: str) -> JsonObject:
        return self._connection.send("PUT", _tag(adapter, number, label))

    def untag(self, adapter: str, number: int, label: str) -> JsonObject:
        return self._connection.send("DELETE", _tag(adapter, number, label))

    def archive(self, adapter: str, number: int, *, reason: str = "") -> JsonObject:
        return self._connection.send("POST", f"{_version(adapter, number)}/archive", {"reason": reason})

    def unarchive(self, adapter: str, number: int, *, reason: str = "") -> JsonObject:
        return self._connection.send("POST", f"{_version(adapter, number)}/unarchive", {"reason": reason})

    def retention(self, adapter: str) -> JsonObject:
        """The policy, and what it would remove now."""
        return self._connection.send("GET", f"{_adapter(adapter)}/retention")

    def set_retention(self, adapter: str, keep_last: int) -> JsonObject:
        return self._connection.send("PUT", f"{_adapter(adapter)}/retention", {"keep_last": keep_last})

    def apply_retention(self, adapter: str, *, keep_last: int | None = None, dry_run: bool = True) -> JsonObject:
        body = {"keep_last": keep_last, "dry_run": dry_run}
        return self._connection.send("POST", f"{_adapter(adapter)}/retention/runs", body, timeout=_LONG_SECONDS)

    def export_version(self, adapter: str, number: int, target: Path) -> int:
        """Write the version's archive to `target`, which is whole or absent; its size in bytes."""
        return self._connection.download(f"{_version(adapter, number)}/export", target, timeout=_LONG_SECONDS)

    def import_version(self, adapter: str, source: Path) -> JsonObject:
        """`check_job` in the reply judges the version by this installation's suites."""
        return self._connection.send(
            "POST",
            f"{_adapter(adapter)}/versions/import",
            content=_blocks(source),
            headers={"Content-Type": "application/x-tar"},
            timeout=_LONG_SECONDS,
        )

    def delete_data(
        self,
        scope: str,
        identifier: str,
        *,
        policy: str = "keep",
        reason: str = "",
        dry_run: bool = True,
        expected: int | None = None,
    ) -> JsonObject:
        """`scope` is trajectory, session or user; `policy` keep, retrain or withdraw. By default a dry run."""
        body = {"scope": scope, "id": identifier, "policy": policy, "reason": reason, "dry_run": dry_run}
        return self._connection.send("POST", "/v1/deletions", body | {"expected": expected}, timeout=_LONG_SECONDS)

    def deletions(self, *, limit: int = 50, cursor: str | None = None) -> JsonObject:
        """A page, newest first: `data`, and `next_cursor` for the next one."""
        params: JsonObject = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        return self._connection.send("GET", "/v1/deletions", params=params)

    def deletion(self, deletion: str) -> JsonObject:
        """`retrainings` in it says how the training of versions anew goes."""
        return self._connection.send("GET", f"/v1/deletions/{quote(deletion, safe='')}")

    def collect_garbage(self, *, dry_run: bool = True) -> JsonObject:
        return self._connection.send("POST", "/v1/garbage", {"dry_run": dry_run}, timeout=_LONG_SECONDS)


def _adapter(name: str) -> str:
    return f"/v1/adapters/{quote(name, safe='')}"


def _version(adapter: str, number: int) -> str:
    return f"{_adapter(adapter)}/versions/{number}"


def _tag(adapter: str, number: int, label: str) -> str:
    return f"{_version(adapter, number)}/tags/{quote(label, safe='')}"


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block
