"""What the client's nouns have in common: each makes its calls over the client's one connection."""

from api.client.connection import Connection


class Noun:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
