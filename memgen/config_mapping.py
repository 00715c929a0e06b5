"""Frozen dataclasses of settings from and to JSON objects, with every name and type checked."""

import sys
from dataclasses import asdict, fields
from typing import Any, Self, get_args

from memgen.errors import ConfigError

_LARGEST = sys.float_info.max
_LONGEST_SHOWN = 200


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def check_type(name: str, expected: Any, value: Any) -> None:
    """Raise ConfigError unless a value of JSON is of a field's type: int, float, str, bool, or a tuple of one of them.

    A number is one that a float can hold.
    """
    if expected in (int, float):
        fits = isinstance(value, int if expected is int else int | float) and not isinstance(value, bool)
        # Compared, because an integer of JSON may be too long to become a float, or to be printed.
        require(
            fits and abs(value) <= _LARGEST, f"{name} is {_shown(value)}; expected a number of type {expected.__name__}"
        )
    elif expected in (str, bool):
        require(isinstance(value, expected), f"{name} is {_shown(value)}; expected a value of type {expected.__name__}")
    else:
        require(isinstance(value, list | tuple), f"{name} is {_shown(value)}; expected a list")
        for place, each in enumerate(value):
            check_type(f"{name}[{place}]", get_args(expected)[0], each)


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) > _LARGEST:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


class FromMapping:
    """Builds the dataclass from a JSON object, refusing names it does not know."""

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> Self:
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]  # every subclass is a dataclass
        unknown = sorted(set(values) - known)
        require(not unknown, f"unknown {cls.__name__} fields {unknown}; known: {sorted(known)}")
        for field in fields(cls):  # type: ignore[arg-type]  # as above
            check_type(field.name, field.type, values.get(field.name, field.default))
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # as above
