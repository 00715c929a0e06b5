"""What all answers have in common: immutable, tolerant of fields of newer services, shown as a table in a notebook."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from memgen_client.pictures.tables import fields_table


class Model(BaseModel):
    # Built when the first answer of the kind comes: a command that needs one of them does not wait for all.
    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=(), defer_build=True)

    shown: ClassVar[tuple[str, ...]] = ()
    """Fields that a table of several has as columns; empty for all that are one value."""

    def _repr_html_(self) -> str:
        return fields_table({name: getattr(self, name) for name in type(self).model_fields})
