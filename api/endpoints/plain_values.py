"""Requests whose numbers are numbers and whose booleans are booleans: pydantic's own reading takes `true` for 1, and
texts for either."""

from types import NoneType
from typing import Any, get_args

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

from api.http.body_model import BodyModel


class PlainValues(BodyModel):
    """A request body. A float without a fraction is an integer, as in JSON; nothing else is converted."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_not_converted(cls, given: Any, info: ValidationInfo) -> Any:
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if kinds == {bool} and not isinstance(given, bool | None):
            raise PydanticKnownError("bool_type")
        if kinds in ({int}, {float}) and isinstance(given, bool | str):
            raise PydanticKnownError("int_type" if kinds == {int} else "float_type")
        return given


def _kinds(annotation: object) -> set[object]:
    """The types of a field, without None: `{int}` for `int | None`."""
    return set(get_args(annotation) or (annotation,)) - {NoneType}
