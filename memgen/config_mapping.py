"""Frozen dataclasses of settings from and to JSON objects, with every name and type checked."""

import math
from dataclasses import asdict, fields
from typing import Any, Self

from memgen.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def _check_type(name: str, expected: Any, value: Any) -> None:
    if expected in (int, float):
        fits = isinstance(value, int if expected is int else int | float) and not isinstance(value, bool)
        require(fits and math.isfinite(value), f"{name} is {value!r}; expected a number of type {expected.__name__}")
    elif expected in (str, bool):
        require(isinstance(value, expected), f"{name} is {value!r}; expected a value of type {expected.__name__}")
    else:
        require(isinstance(value, list | tuple), f"{name} is {value!r}; expected a list")


class FromMapping:
    """Builds the dataclass from a JSON object, refusing names it does not know."""

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> Self:
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]  # every subclass is a dataclass
        unknown = sorted(set(values) - known)
        require(not unknown, f"unknown {cls.__name__} fields {unknown}; known: {sorted(known)}")
        for field in fields(cls):  # type: ignore[arg-type]  # as above
            _check_type(field.name, field.type, values.get(field.name, field.default))
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # as above
