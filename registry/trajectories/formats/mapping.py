"""The table of a format: what of it becomes which part of a trajectory, and what is dropped. Pages show it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DROPPED = "(dropped)"


@dataclass(frozen=True)
class Mapped:
    source: str
    """Field or value of the foreign format."""
    target: str
    """What it becomes in the format `chat`; `DROPPED` where it becomes nothing."""
    note: str = ""


def named(fields: Iterable[str]) -> str:
    """Fields as a `source` shows them, so that the page lists what the code reads."""
    return ", ".join(f"`{field}`" for field in fields)


def markdown_table(rows: Sequence[Mapped]) -> str:
    """The table as it stands in the pages."""
    lines = ["| from | to | note |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {row.source} | {row.target} | {row.note} |" for row in rows)])
