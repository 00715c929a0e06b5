"""Formats in which a trajectory may be sent: a name, a reader and a JSON Schema each. The API and the import read here.

To add a format, write a module beside `openai.py` with

    SCHEMA: JsonObject                   JSON Schema of one sent trajectory, shown at /docs
    def read(item: object) -> Draft      from a parsed JSON value; raises InvalidTrajectory with a stable code

and name it in `FORMATS`. Then `?format=NAME` of POST /v1/trajectories and /v1/trajectories/import takes it, and so do
`client.upload(..., format=NAME)` and `memgen upload --format NAME`; OpenAPI lists the name and shows the schema. All
trajectories of one request have one format.

A reader is pure: whether the task exists, or the trajectory is already stored, is for the import. What a reader returns
has passed `check_conversation`, so that training can learn from it, and `content_hash`, so that it can be stored.
"""

from collections.abc import Callable
from dataclasses import dataclass

from registry.errors import Invalid, InvalidJson, InvalidTrajectory
from registry.json_text import parse_json, show
from registry.models import JsonObject
from registry.trajectories.draft import Draft
from registry.trajectories.formats import openai


@dataclass(frozen=True)
class TrajectoryFormat:
    read: Callable[[object], Draft]
    schema: JsonObject


DEFAULT_FORMAT = "openai"
FORMATS = {DEFAULT_FORMAT: TrajectoryFormat(openai.read, openai.SCHEMA)}


def check_format(format_name: str) -> str:
    """The name itself. Raises Invalid: no format has it."""
    if format_name not in FORMATS:
        raise Invalid(f"format: got {show(format_name)}; expected one of: {', '.join(sorted(FORMATS))}")
    return format_name


def read_trajectory(item: object, format_name: str = DEFAULT_FORMAT) -> Draft:
    """The draft of one parsed JSON value. Raises InvalidTrajectory."""
    return FORMATS[format_name].read(item)


def parse_trajectory(data: bytes, format_name: str = DEFAULT_FORMAT) -> Draft:
    """The draft of one JSONL line. Raises InvalidTrajectory."""
    try:
        item = parse_json(data)
    except InvalidJson as error:
        raise InvalidTrajectory(error.code, str(error)) from error
    return read_trajectory(item, format_name)
