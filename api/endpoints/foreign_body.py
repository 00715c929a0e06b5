"""What the bodies of other APIs have in common: nulls are absent, and what is not supported is taken where it asks for
nothing. Each is read as a chat's body, so that what a chat refuses is refused in the same words everywhere."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, StringConstraints, ValidationError, model_validator

from api.endpoints.chat_models import ChatIn
from api.endpoints.plain_values import PlainValues
from api.http.json_object import JsonObject
from api.http.openai_errors import place_text
from api.http.places import own_place
from registry.errors import InvalidTrajectory
from registry.json_text import show

ModelName = Annotated[str, StringConstraints(max_length=600, pattern=r"\A[^\x00]*\z")]
"""As long as the longest names of an adapter and an alias."""


class ForeignBody(PlainValues):
    """A body in another API's words. What is not a field of it is refused by name."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _nulls_are_absent(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {name: value for name, value in body.items() if value is not None or name in required}


def only(*neutral: object) -> Callable[[object], object]:
    """A validator of a field that is not supported, beyond null and values that ask for nothing."""

    def check(value: object) -> object:
        if value is not None and value not in neutral:
            expected = " or ".join(["null", *map(show, neutral)])
            raise ValueError(f"{show(value)} is not supported; expected {expected}, or leave it out")
        return value

    return check


def as_chat(fields: JsonObject, path: str) -> ChatIn:
    """The chat's body with these fields.

    Args:
        path: the caller's, in whose words the places of faults are.

    Raises:
        RequestValidationError: a chat refuses a field.
    """
    try:
        return ChatIn.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise RequestValidationError(
            [{**each, "loc": ("body", own_place(path, place_text(each["loc"])))} for each in found]
        ) from error


def refuse(place: str, got: object, expected: str, code: str = "content_part") -> InvalidTrajectory:
    """The error for a part of a conversation that can't be read. Its place is the caller's own."""
    return InvalidTrajectory(code, f"{place}: got {show(got)}; expected {expected}")
