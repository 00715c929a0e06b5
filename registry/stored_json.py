"""Dataclasses that are stored as JSON objects, and read back as they were written. Knows no noun.

Stored JSON stays as it was written. A row that was made before a field was known lacks its key: it is read with the
field's default, and written again it still lacks the key. Keys that no field has are kept and not read.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, ClassVar, Self

from registry.errors import UnreadableRow


@dataclass(frozen=True)
class StoredJson:
    """A dataclass that is stored as a JSON object with a key for each field.

    With a field `b: int = 0`, `{"a": 1}` is read with `b == 0` and written as `{"a": 1}` again; with `b` replaced by 2
    it is written as `{"a": 1, "b": 2}`.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()
    """Keys that a new object leaves out as long as their field has its default."""
    READERS: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}
    """How the value of a field is made of the stored one, for fields that are no plain JSON."""

    absent: frozenset[str] | None = field(default=None, kw_only=True, compare=False, repr=False)
    """Keys that are left out as long as their field has its default: those that the stored object lacked. None for a
    new object, which leaves out `OPTIONAL`."""

    unknown: Mapping[str, Any] = field(default_factory=dict, kw_only=True, compare=False, repr=False)
    """What stands under keys that no field has, as another release may have written: it is kept, and not read."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Raises UnreadableRow: a key that has no default is missing, or a value is none of the field's."""
        names = {each.name for each in fields(cls)} - _OF_STORAGE
        read: dict[str, Any] = {}
        for name in names & stored.keys():
            try:
                read[name] = cls.READERS[name](stored[name]) if name in cls.READERS else stored[name]
            except (TypeError, ValueError, AttributeError) as error:
                raise UnreadableRow(f"{cls.__name__}: {name} is {stored[name]!r}: {error}") from error
        unknown = {name: value for name, value in stored.items() if name not in names}
        try:
            return cls(**read, absent=frozenset(names - read.keys()), unknown=unknown)
        except TypeError as error:
            raise UnreadableRow(f"{cls.__name__}: the keys are {sorted(stored)}: {error}") from error

    def changed(self, **values: Any) -> Self:
        """A copy with other values of these fields, which are written even where they have their default."""
        absent = self.OPTIONAL if self.absent is None else self.absent
        return replace(self, **values, absent=absent - values.keys())

    def to_json(self) -> dict[str, Any]:
        absent = self.OPTIONAL if self.absent is None else self.absent
        return {
            each.name: _plain(getattr(self, each.name))
            for each in fields(self)
            if each.name not in _OF_STORAGE and not (each.name in absent and getattr(self, each.name) == _default(each))
        } | dict(self.unknown)


_OF_STORAGE = frozenset({"absent", "unknown"})
"""Fields of a stored object that are no keys of its own."""


def _default(each: "Field[Any]") -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


def _plain(value: Any) -> Any:
    if isinstance(value, StoredJson):
        return value.to_json()
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value
