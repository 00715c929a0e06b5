"""What a reply is read as: one object, rows, a page of rows, or a value inside."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from pydantic import ValidationError

from memgen_client.errors import UnexpectedReply
from memgen_client.json_values import JsonObject, JsonValue
from memgen_client.models.model import Model
from memgen_client.models.rows import Page, Rows

AnswerT = TypeVar("AnswerT", covariant=True)
ModelT = TypeVar("ModelT", bound=Model)


@dataclass(frozen=True)
class Answer(Generic[AnswerT]):
    """How to read a reply's JSON. `model` and `form` say it for tests that compare with the service's own schemas."""

    read: Callable[[JsonObject], AnswerT]
    model: type[Model] | None = None
    form: Literal["one", "rows", "page", "value"] = "one"
    inside: str | None = None
    """Name of the member that is the answer; None for the whole object."""

    def unread(self, body: JsonObject) -> JsonValue:
        """The answer as JSON, for a client that passes on what the service said.

        Raises:
            UnexpectedReply: it is not of the form that this client knows.
        """
        self.read(body)
        return body if self.inside is None else body[self.inside]


def one(model: type[ModelT]) -> Answer[ModelT]:
    return Answer(lambda body: fitting(model, body), model)


def rows(model: type[ModelT]) -> Answer[Rows[ModelT]]:
    """All rows of a listing that has no pages."""
    return Answer(lambda body: Rows(_each(model, body)), model, "rows", "data")


def page(model: type[ModelT]) -> Answer[Page[ModelT]]:
    return Answer(lambda body: Page(Rows(_each(model, body)), cursor_of(body)), model, "page")


def cursor_of(body: JsonObject) -> str | None:
    """Where the next page begins; None on the last one."""
    cursor = body.get("next_cursor")
    return cursor if isinstance(cursor, str) else None


def json_object() -> Answer[JsonObject]:
    """A reply whose form is another API's."""
    return Answer(lambda body: body, form="value")


def count(inside: str) -> Answer[int]:
    """The number that the reply's one member is."""

    def read(body: JsonObject) -> int:
        value = body.get(inside)
        if not isinstance(value, int):
            raise UnexpectedReply(f"the service's reply has {value!r} as {inside!r}; expected a whole number")
        return value

    return Answer(read, form="value", inside=inside)


def fitting(model: type[ModelT], body: JsonValue) -> ModelT:
    """Raises UnexpectedReply: the service's answer is of another form than this client knows."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        places = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:5])
        raise UnexpectedReply(
            f"the service's reply is no {model.__name__} as this client knows it ({places}). If the service is of "
            "another release, install the memgen-client of that release."
        ) from error


def rows_of(body: JsonObject) -> list[JsonValue]:
    """The rows of a listing, as they came. Raises UnexpectedReply: there are none."""
    data = body.get("data")
    if not isinstance(data, list):
        raise UnexpectedReply("the service's reply has no list `data`, as its listings do")
    return data


def _each(model: type[ModelT], body: JsonObject) -> list[ModelT]:
    return [fitting(model, row) for row in rows_of(body)]
