"""`client.base`: the base that the service serves."""

from api.client.noun import Noun
from api.http.json_object import JsonObject


class Bases(Noun):
    def get(self) -> JsonObject:
        """Name, revision, identity and longest context, and `profile`, how it reads conversations; `refused` says why
        it can't be worked with."""
        return self._connection.send("GET", "/v1/base")
