"""JSON as it comes and goes, without `Any`: what comes is `JsonValue`; what goes may be anything that JSON can say."""

from collections.abc import Mapping
from typing import TypeAlias

from pydantic import JsonValue

JsonObject: TypeAlias = dict[str, JsonValue]
"""A JSON object that the service sent."""
Json: TypeAlias = Mapping[str, object]
"""A JSON object to send: any mapping, whatever its values are typed as."""

__all__ = ["Json", "JsonObject", "JsonValue"]


def given(**named: object) -> dict[str, object]:
    """Those that are not None: what is left out keeps the service's default."""
    return {name: value for name, value in named.items() if value is not None}
