"""Where the API's nouns are: paths of URLs. Names of users are quoted, so that none can leave its place in a path."""

from urllib.parse import quote

CHAMPION = "champion"
"""The alias that calls are about unless they name another."""


def path(*parts: str | int) -> str:
    """`/v1/...` of the parts, each of which is one place: `path("tasks", "a/b")` is `/v1/tasks/a%2Fb`."""
    return "/".join(["/v1", *(quote(str(part), safe="") for part in parts)])
