"""`client.versions`: an adapter's trained memories, compared, tagged, archived, exported and imported."""

from collections.abc import Iterator
from pathlib import Path

from api.client.deprecated import CalledAsMethod
from api.client.noun import Noun
from api.client.paths import adapter_path, tag_path, version_path
from api.http.json_object import JsonObject, JsonObjects

_BLOCK_BYTES = 1_048_576
_ARCHIVE_SECONDS = 600.0


class Versions(Noun, CalledAsMethod):
    def list(self, adapter: str) -> JsonObjects:
        """Oldest first."""
        return [*self._connection.all_pages(f"{adapter_path(adapter)}/versions")]

    def get(self, adapter: str, number: int) -> JsonObject:
        return self._connection.send("GET", version_path(adapter, number))

    def states(self, adapter: str) -> JsonObjects:
        """Tags of every version, and whether it is archived, withdrawn or purged; oldest first."""
        return [*self._connection.all_pages(f"{adapter_path(adapter)}/states")]

    def lineage(self, adapter: str, number: int) -> JsonObject:
        """What the version was made from, and what was made from it."""
        return self._connection.send("GET", f"{version_path(adapter, number)}/lineage")

    def history(self, adapter: str, number: int) -> JsonObjects:
        """Who tagged, archived, withdrew, purged, restored, exported or imported it, oldest first."""
        return self._connection.data(f"{version_path(adapter, number)}/history")

    def compare(self, adapter: str, left: int, right: int) -> JsonObject:
        params = {"left": left, "right": right}
        return self._connection.send("GET", f"{adapter_path(adapter)}/comparison", params=params)

    def tag(self, adapter: str, number: int, label: str) -> JsonObject:
        return self._connection.send("PUT", tag_path(adapter, number, label))

    def untag(self, adapter: str, number: int, label: str) -> JsonObject:
        return self._connection.send("DELETE", tag_path(adapter, number, label))

    def archive(self, adapter: str, number: int, *, reason: str = "") -> JsonObject:
        """Hide a version that nothing refers to."""
        return self._connection.send("POST", f"{version_path(adapter, number)}/archive", {"reason": reason})

    def unarchive(self, adapter: str, number: int, *, reason: str = "") -> JsonObject:
        return self._connection.send("POST", f"{version_path(adapter, number)}/unarchive", {"reason": reason})

    def export_file(self, adapter: str, number: int, target: Path) -> int:
        """Write the version as a file to `target`, which is whole or absent, and return its size in bytes."""
        path = f"{version_path(adapter, number)}/export"
        return self._connection.download(path, target, timeout=_ARCHIVE_SECONDS)

    def import_file(self, adapter: str, source: Path) -> JsonObject:
        """`check_job` in the reply judges the version by this installation's suites."""
        return self._connection.send(
            "POST",
            f"{adapter_path(adapter)}/versions/import",
            content=_blocks(source),
            headers={"Content-Type": "application/x-tar"},
            timeout=_ARCHIVE_SECONDS,
        )


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block
