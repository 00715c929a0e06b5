"""Formats in which trajectories may be sent: a name, a reader, a JSON Schema and a table each.

The API, the import, the command line and the pages read here. To add a format, write a module beside `chat.py` with

    SCHEMA: JsonObject                   JSON Schema of one sent value, shown at /docs
    MAPPING: tuple[Mapped, ...]          the table of docs/formats.md: what becomes what, and what is dropped
    def read(item: object) -> Draft      from a parsed JSON value; raises InvalidTrajectory with a stable code

and name it in `FORMATS`. Then `?format=NAME` of POST /v1/trajectories and /v1/trajectories/import takes it, and so do
`client.upload(..., format=NAME)`, `memgen upload --format NAME` and `memgen convert --from NAME`; OpenAPI lists the
name and shows the schema. All trajectories of one request have one format.

Where a value holds several trajectories, or one is spread over several values, the format opens a `FormatReading` of
its own. A reader is pure: whether the task exists, or the trajectory is already stored, is for the import. It puts
together a trajectory of the format `chat` and lets `chat.read` check it, so that training can learn from it and it can
be stored.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from registry.errors import Invalid, InvalidTrajectory
from registry.json_text import parse_json, show
from registry.models import JsonObject
from registry.trajectories.documents import JsonSplitter
from registry.trajectories.draft import Draft, Sent
from registry.trajectories.formats import atif, chat, hf_tools, otlp, sharegpt
from registry.trajectories.formats.mapping import Mapped
from registry.trajectories.jsonl import JsonLine


class FormatReading(Protocol):
    """The reading of one file or request."""

    def read(self, number: int, value: object) -> Iterable[Sent]:
        """What is known of the value at this line or place. Raises InvalidTrajectory."""
        ...

    def finish(self) -> Iterable[Sent]:
        """What could only be known at the end."""
        ...


class Splitter(Protocol):
    """What cuts a file into its values, see `JsonSplitter`."""

    @property
    def number(self) -> int: ...
    @property
    def unit(self) -> str: ...
    @property
    def cut(self) -> bool: ...
    def feed(self, piece: bytes) -> Iterator[JsonLine]: ...
    def finish(self) -> Iterator[JsonLine]: ...


@dataclass(frozen=True)
class EachAlone:
    """The reading of a format whose every value is one trajectory."""

    one: Callable[[object], Draft]

    def read(self, number: int, value: object) -> Iterable[Sent]:
        return [(number, self.one(value))]

    def finish(self) -> Iterable[Sent]:
        return ()


@dataclass(frozen=True)
class EachDocument:
    """The reading of a format whose every value holds one trajectory or more."""

    several: Callable[[object], Iterable[Draft | InvalidTrajectory]]

    def read(self, number: int, value: object) -> Iterable[Sent]:
        return [(number, found) for found in self.several(value)]

    def finish(self) -> Iterable[Sent]:
        return ()


@dataclass(frozen=True)
class TrajectoryFormat:
    open: Callable[[], FormatReading]
    schema: JsonObject
    mapping: tuple[Mapped, ...] = ()
    documents: bool = False
    """Whether a value may be as long as a document, rather than as one trajectory."""
    split: Callable[[int], Splitter] = JsonSplitter
    """A splitter whose values have at most this many bytes."""
    parse: Callable[[bytes], object] = parse_json
    """The value of one line or document. Raises InvalidJson or InvalidTrajectory."""
    mark: str | None = None
    """A field that its values have, and those of most other formats have not."""


DEFAULT_FORMAT = "chat"
FORMATS = {
    DEFAULT_FORMAT: TrajectoryFormat(lambda: EachAlone(chat.read), chat.SCHEMA, chat.MAPPING, mark="messages"),
    "atif": TrajectoryFormat(lambda: EachDocument(atif.read), atif.SCHEMA, atif.MAPPING, documents=True, mark="steps"),
    "otlp": TrajectoryFormat(
        otlp.OtlpReading,
        otlp.SCHEMA,
        otlp.MAPPING,
        documents=True,
        split=otlp.OtlpSplitter,
        parse=otlp.parse,
        mark="resourceSpans",
    ),
    "sharegpt": TrajectoryFormat(
        lambda: EachAlone(sharegpt.read), sharegpt.SCHEMA, sharegpt.MAPPING, mark="conversations"
    ),
    "hf-tools": TrajectoryFormat(lambda: EachAlone(hf_tools.read), hf_tools.SCHEMA, hf_tools.MAPPING, mark="messages"),
}
ALIASES = {"openai": DEFAULT_FORMAT}
"""Other names of formats, such as what one was called before."""


def format_names() -> list[str]:
    """Every name that is taken, aliases too."""
    return sorted({*FORMATS, *ALIASES})


def check_format(format_name: str) -> str:
    """The format's own name. Raises Invalid: no format has it."""
    name = ALIASES.get(format_name, format_name)
    if name not in FORMATS:
        raise Invalid(f"format: got {show(format_name)}; expected one of: {', '.join(sorted(FORMATS))}")
    return name


def other_format(value: object, expected: TrajectoryFormat) -> str | None:
    """Name of the format that a value, which is not of the expected one, seems to have; None if it has no known one."""
    if not isinstance(value, dict) or expected.mark is None or expected.mark in value:
        return None
    return next((name for name, each in FORMATS.items() if each.mark in value), None)
