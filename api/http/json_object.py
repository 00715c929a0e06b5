"""What travels over HTTP in both directions."""

from typing import Any

JsonObject = dict[str, Any]
JsonObjects = list[JsonObject]
