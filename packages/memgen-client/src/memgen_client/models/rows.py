"""Several answers of one kind, and a page of them; a notebook shows them as a table."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from memgen_client.models.model import Model
from memgen_client.pictures.tables import is_plain, table

RowT = TypeVar("RowT")


class Rows(list[RowT]):
    """A list that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        if not self:
            return table((), [], note="none")
        first = self[0]
        if not isinstance(first, Model):
            return table(("value",), [[row] for row in self])
        names = first.shown or tuple(n for n in type(first).model_fields if is_plain(getattr(first, n)))
        return table(names, [[getattr(row, name) for name in names] for row in self])


@dataclass(frozen=True)
class Page(Generic[RowT]):
    """A part of a listing. Iterating gives the rows of this page; a noun's `all` gives those of all pages."""

    data: Rows[RowT]
    next_cursor: str | None
    """Send as `cursor` for the next page; None on the last one."""

    def __iter__(self) -> Iterator[RowT]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def _repr_html_(self) -> str:
        more = "" if self.next_cursor is None else "<p>There is more: send <code>next_cursor</code>.</p>"
        return self.data._repr_html_() + more
