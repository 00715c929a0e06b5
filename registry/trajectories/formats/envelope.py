"""The envelope of a trajectory: the fields beside its conversation.

Each field is declared once, with how it is read and with the JSON Schema that the API shows for it. The envelope is the
same in every format that is one JSON object with these fields beside the messages.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from registry.errors import InvalidTrajectory
from registry.json_text import show
from registry.models import JsonObject
from registry.names import MAX_SESSION_CHARACTERS, NAME_PATTERN, is_valid_name
from registry.trajectories.tools import MAX_NAME_CHARACTERS, is_name


@dataclass(frozen=True)
class EnvelopeField:
    name: str
    schema: JsonObject
    """JSON Schema of its value, for the API's documentation."""
    read: Callable[[str, Any], Any]
    """Maps (name, value) to the value that is stored; an absent field has value None. Raises InvalidTrajectory."""


def read_envelope(item: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all `ENVELOPE` fields. Raises InvalidTrajectory at the first fault."""
    return {field.name: field.read(field.name, item.get(field.name)) for field in ENVELOPE}


def read_task(item: Mapping[str, Any]) -> str | None:
    """The task's name. It is read apart because it is no part of the content that is hashed."""
    task: str | None = TASK.read(TASK.name, item.get(TASK.name))
    return task


def _identifier(name: str, value: object, most: int = MAX_NAME_CHARACTERS) -> str | None:
    if value is None or (isinstance(value, str) and 0 < len(value) <= most):
        return value
    got = f"{len(value)} characters" if isinstance(value, str) else show(value)
    raise InvalidTrajectory(f"{name}_invalid", f"{name}: got {got}; expected a string of 1 to {most} characters")


def _session(name: str, value: object) -> str | None:
    return _identifier(name, value, MAX_SESSION_CHARACTERS)


def _task(name: str, value: object) -> str | None:
    if value is None or is_name(value):
        return value
    raise InvalidTrajectory("task_invalid", f"{name}: got {show(value)}; expected the name of a task")


def _reward(name: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass  # an integer beyond every double
    raise InvalidTrajectory("reward_invalid", f"{name}: got {show(value)}; expected a finite number")


def _reward_source(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and is_valid_name(value)):
        return value
    raise InvalidTrajectory(
        "reward_source_invalid", f"{name}: got {show(value)}; expected a name such as environment, grader or user"
    )


def _success(name: str, value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise InvalidTrajectory("success_invalid", f"{name}: got {show(value)}; expected true or false")


def _metadata(name: str, value: object) -> JsonObject:
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise InvalidTrajectory("metadata_invalid", f"{name}: got {show(value)}; expected an object")


def _text(description: str, most: int = MAX_NAME_CHARACTERS) -> JsonObject:
    return {"type": "string", "minLength": 1, "maxLength": most, "description": description}


TASK = EnvelopeField("task", _text("Name of the task; `?task=` is the default."), _task)
ENVELOPE = (
    EnvelopeField("trajectory_id", _text("Your own id; need not be unique."), _identifier),
    EnvelopeField(
        "session_id", _text("Groups trajectories of one conversation or user.", MAX_SESSION_CHARACTERS), _session
    ),
    EnvelopeField("reward", {"type": ["number", "null"]}, _reward),
    EnvelopeField(
        "reward_source",
        {
            "type": ["string", "null"],
            "pattern": NAME_PATTERN,
            "description": "Who says so: environment, grader, user, or any other name.",
        },
        _reward_source,
    ),
    EnvelopeField("success", {"type": ["boolean", "null"]}, _success),
    EnvelopeField("adapter_version", _text("The version that answered, such as `support-bot@7`."), _identifier),
    EnvelopeField(
        "metadata", {"type": ["object", "null"], "description": "Whatever is your own; kept as it is."}, _metadata
    ),
)
"""Fields of a stored trajectory beside its task and its conversation, in the order in which they are checked."""
