"""`client.retention` and `client.garbage`: which bytes are kept, and the removal of those that nothing refers to."""

from api.client.deprecated import CalledAsMethod
from api.client.noun import Noun
from api.client.paths import adapter_path
from api.http.json_object import JsonObject

_REMOVAL_SECONDS = 600.0


class Retention(Noun, CalledAsMethod):
    def get(self, adapter: str) -> JsonObject:
        """The policy, and what it would remove now."""
        return self._connection.send("GET", f"{adapter_path(adapter)}/retention")

    def change(self, adapter: str, keep_last: int) -> JsonObject:
        """Set the policy; nothing is removed before `apply`."""
        return self._connection.send("PUT", f"{adapter_path(adapter)}/retention", {"keep_last": keep_last})

    def apply(self, adapter: str, *, keep_last: int | None = None, dry_run: bool = True) -> JsonObject:
        """Remove the bytes of versions that nothing refers to. By default a dry run."""
        body = {"keep_last": keep_last, "dry_run": dry_run}
        path = f"{adapter_path(adapter)}/retention/runs"
        return self._connection.send("POST", path, body, timeout=_REMOVAL_SECONDS)


class Garbage(Noun):
    def collect(self, *, dry_run: bool = True) -> JsonObject:
        """Remove objects that no row names any more. By default a dry run."""
        return self._connection.send("POST", "/v1/garbage", {"dry_run": dry_run}, timeout=_REMOVAL_SECONDS)
