"""What bodies of requests are made of: objects that are refused at few of their faults, however many they have.

Pydantic tells every fault, and each costs a kilobyte and microseconds of the event loop: of a list with a million wrong
items, gigabytes, and seconds in which nobody is answered.
"""

from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticCustomError

_MOST_FIELDS = 100
"""More than any body has."""
_COLLECTIONS = ("list", "tuple", "set", "frozenset", "dict")
_NO_SCHEMAS = ("default", "fields", "metadata")


class BodyModel(BaseModel):
    """A body, or an object in one. Of a list or a mapping the first fault is told, of fields a hundred at most."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        waiting: list[Any] = [schema]
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict):
                if part.get("type") in _COLLECTIONS:
                    part["fail_fast"] = True
                fields = part.get("fields", {})  # by name, and a field may be called `metadata`
                waiting += fields.values() if isinstance(fields, dict) else fields
                waiting += (value for key, value in part.items() if key not in _NO_SCHEMAS)
            elif isinstance(part, list | tuple):
                waiting += part
        return schema

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > _MOST_FIELDS:
            counted = {"count": len(given), "most": _MOST_FIELDS}
            raise PydanticCustomError("too_many_fields", "{count} fields; expected {most} at most", counted)
        return given
