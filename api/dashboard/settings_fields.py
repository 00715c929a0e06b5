"""Fields of a form for settings that a dataclass lists: each with its meaning, and read as its type wants it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from api.dashboard.visits import Visit


@dataclass(frozen=True)
class SettingField:
    name: str
    meaning: str
    kind: Any
    choices: Sequence[str] = ()

    def read(self, visit: Visit) -> Any:
        """What the form says of it; None where it was left empty."""
        if self.kind is bool:
            return visit.text(self.name) == "yes"
        if self.kind is str:
            return visit.text(self.name) or None
        return visit.number(self.name) if self.kind is int else visit.share(self.name)


def setting_fields(settings: type, choices: Mapping[str, Sequence[str]]) -> list[SettingField]:
    """`choices` are those of the settings that have some; the meanings stand in the metadata of the fields."""
    return [
        SettingField(each.name, each.metadata["meaning"], each.type, choices.get(each.name, ()))
        for each in fields(settings)
    ]
