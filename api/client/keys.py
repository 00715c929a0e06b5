"""`client.keys`: API keys of the project."""

from api.client.noun import Noun
from api.client.paths import key_path
from api.http.json_object import JsonObject, JsonObjects


class Keys(Noun):
    def create(self, name: str, scopes: list[str]) -> JsonObject:
        """`key` in the reply is shown this once."""
        return self._connection.send("POST", "/v1/keys", {"name": name, "scopes": scopes})

    def list(self) -> JsonObjects:
        return self._connection.data("/v1/keys")

    def revoke(self, key_id: str) -> JsonObject:
        return self._connection.send("DELETE", key_path(key_id))
