"""A form that is refused is shown again as it was filled in, with what is wrong beside the field that it is about."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from memgen.errors import ConfigError, UnknownGrader
from registry.errors import AdapterNotFound, InvalidName, NameTaken, TaskNotFound

Fields = Mapping[str, str]
Places = Mapping[type[Exception], str]
"""The field, or the group of fields, that errors of a class are about."""

_PLACES: Places = {
    InvalidName: "name",
    NameTaken: "name",
    AdapterNotFound: "adapter",
    TaskNotFound: "task",
    ConfigError: "training",
    UnknownGrader: "grader",
}


class WrongField(ValueError):
    """A field of a form holds what it can't. Outside of the form's page it is told as `Invalid`."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


@dataclass(frozen=True)
class Refusal:
    """Why a form was refused."""

    action: str
    """The path that it was sent to."""
    status: int
    problems: Mapping[str, str]
    """By field; under the empty name, what is about no field of the form."""


@dataclass(frozen=True)
class Form:
    """What a template fills a form with: what its page says, or what was sent and refused."""

    action: str
    name: str
    """What the ids of its fields begin with: a page may have several forms."""
    sent: Fields | None = None
    problems: Mapping[str, str] = field(default_factory=dict)

    def id(self, name: str) -> str:
        return f"{self.name}-{name}".replace(".", "-")

    def value(self, name: str, otherwise: object = "") -> str:
        text = otherwise if self.sent is None else self.sent.get(name, "")
        return "" if text is None else str(text)

    def ticked(self, name: str, otherwise: bool) -> bool:
        """Whether a box is checked; a browser sends nothing of one that is not."""
        return otherwise if self.sent is None else bool(self.sent.get(name))

    def problem(self, name: str) -> str:
        return self.problems.get(name, "")

    def is_first_wrong(self, name: str) -> bool:
        """Whether the cursor belongs there: it is the first field that was refused, in the order of the form."""
        wrong = [each for each in self.sent or () if each in self.problems]
        return wrong[:1] == [name]


def refused(action: str, sent: Fields, status: int, detail: str, error: Exception, places: Places) -> Refusal:
    """`detail` is what the error says to a person; `places` are those of this form, before the usual ones."""
    if isinstance(error, ValidationError):
        problems: dict[str, list[str]] = {}
        for fault in error.errors():
            path = ".".join(map(str, fault["loc"]))
            found = next((name for name in (path, path.partition(".")[0]) if name in sent), "")
            problems.setdefault(found, []).append(fault["msg"] if found or not path else f"{path}: {fault['msg']}")
        return Refusal(action, status, {name: "; ".join(texts[:5]) for name, texts in problems.items()})
    return Refusal(action, status, {_place(sent, detail, error, places): detail})


def _place(sent: Fields, detail: str, error: Exception, places: Places) -> str:
    if isinstance(error, WrongField):
        return error.name
    own = next((places[kind] for kind in type(error).__mro__ if kind in places), None)
    if own is not None:
        return own
    # Errors begin with the field that they are about, where they are about one.
    usual = [_PLACES[kind] for kind in type(error).__mro__ if kind in _PLACES]
    return next((name for name in (detail.partition(" ")[0], *usual) if name and name in sent), "")
