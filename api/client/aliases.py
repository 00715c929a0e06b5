"""`client.aliases`: where an adapter's aliases point and pointed. `client.promote` and `rollback` move them."""

from api.client.noun import Noun
from api.client.paths import CHAMPION, alias_path
from api.http.json_object import JsonObject, JsonObjects


class Aliases(Noun):
    def get(self, adapter: str, alias: str = CHAMPION, *, at: str | None = None) -> JsonObject:
        """Which version the alias named at a time (ISO 8601 with its zone), or names now."""
        return self._connection.send("GET", alias_path(adapter, alias), params={"at": at} if at else None)

    def history(self, adapter: str, alias: str = CHAMPION) -> JsonObjects:
        """Every move of the alias, oldest first."""
        return [*self._connection.all_pages(f"{alias_path(adapter, alias)}/history")]
