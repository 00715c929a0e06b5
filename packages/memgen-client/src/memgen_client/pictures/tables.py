"""HTML tables of values. Knows no noun; every value is escaped."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape

_LONGEST = 160
"""Characters of a value that a cell shows."""


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, note: str = "") -> str:
    """A table; `note` stands in place of the rows where there are none."""
    head = "".join(f"<th style='text-align:left'>{escape(name.replace('_', ' '))}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell(value)}</td>' for value in row)}</tr>" for row in rows)
    if not rows:
        return f"<p>{escape(note)}</p>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def fields_table(fields: Mapping[str, object]) -> str:
    """Names and values, one below the other."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name.replace('_', ' '))}</th>"
        f"<td style='text-align:left'>{cell(value)}</td></tr>"
        for name, value in fields.items()
    )
    return f"<table><tbody>{rows}</tbody></table>"


def cell(value: object) -> str:
    """One value as it is read: short, escaped."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return escape(value.strftime("%Y-%m-%d %H:%M"))
    text = _text(value)
    return escape(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(each) for each in value)
    return "" if value is None else str(value)


def is_plain(value: object) -> bool:
    """Whether a value has room in a column."""
    return value is None or isinstance(value, str | int | float | bool | datetime)
