"""What commands print: tables and lines for people on stdout, or one JSON document; notes and progress on stderr.

Knows nothing of what it prints. Text from outside is never read as markup.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else on stdout.")]

_PIPE_COLUMNS = 200
_LINE_CHARACTERS = 200
_COLORS = {
    "passed": "green",
    "succeeded": "green",
    "running": "green",
    "ready": "green",
    "rejected": "red",
    "failed": "red",
    "died": "red",
    "unchecked": "yellow",
    "waiting": "yellow",
    "queued": "yellow",
    "cancelled": "yellow",
}


def print_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def print_line(text: str, *, style: str = "") -> None:
    _console().print(Text(text, style=style), soft_wrap=True)


def print_piece(text: str) -> None:
    """Part of a line, shown at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def print_note(text: str, *, style: str = "dim") -> None:
    """Print on stderr what is worth knowing and no part of the result."""
    notes().print(Text(text, style=style), soft_wrap=True)


def print_warning(text: str) -> None:
    print_note(text, style="yellow")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "None yet.") -> None:
    """Columns whose name begins with `#` are numbers, set to the right. `empty` is printed where there are no rows."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for name in columns:
        table.add_column(name.removeprefix("#"), justify="right" if name[:1] == "#" else "left", overflow="fold")
    for row in rows:
        table.add_row(*[_cell(value) for value in row])
    if table.row_count:
        _console().print(table)
    else:
        print_line(empty, style="dim")


def notes() -> Console:
    """The console for progress and notes."""
    return Console(stderr=True)


def counted(count: int, noun: str) -> str:
    """`1 answer`, `2 answers`, `2 trajectories`."""
    several = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count} {noun if count == 1 else several}"


def percent(score: float | None) -> str:
    return "-" if score is None else f"{100 * score:.1f}%"


def points(change: float | None) -> str:
    """0.031 is `+3.1`."""
    return "-" if change is None else f"{100 * change:+.1f}"


def first_line(text: str) -> str:
    """The first line of a text that may be a whole log, cut where it would fill the screen."""
    line = text.partition("\n")[0]
    return line if len(line) <= _LINE_CHARACTERS else f"{line[:_LINE_CHARACTERS]}..."


def moment(iso: str | None) -> str:
    """A time in the local zone, to the minute."""
    return "-" if iso is None else datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M")


def _cell(value: object) -> Text:
    if value is None or value == "":
        return Text("-", style="dim")
    text = str(value)
    return Text(text, style=_COLORS.get(text, ""))


def _console() -> Console:
    console = Console()
    # A pipe has no width; 80 columns would fold names and ids that a script looks for.
    return console if console.is_terminal else Console(width=_PIPE_COLUMNS)
