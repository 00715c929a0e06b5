"""What travels over HTTP in both directions. Imports nothing, so that the client may have it too."""

from typing import Any

JsonObject = dict[str, Any]
JsonObjects = list[JsonObject]
