"""`client.upstreams`: other endpoints whose models the service serves."""

from api.client.noun import Noun
from api.client.paths import upstream_path
from api.http.json_object import JsonObject, JsonObjects


class Upstreams(Noun):
    def list(self) -> JsonObjects:
        return self._connection.data("/v1/upstreams")

    def check(self, name: str) -> JsonObject:
        """Ask it for its models, from where the API runs; `ok` says whether it can be used."""
        return self._connection.send("POST", f"{upstream_path(name)}/check", timeout=60.0)
