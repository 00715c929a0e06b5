"""What commands print: tables and lines for people on stdout, or one JSON document; notes and progress on stderr.

Knows nothing of what it prints. Text from outside is never read as markup.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Annotated

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from registry.wording import counted

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else on stdout.")]

_PIPE_COLUMNS = 200
_LINE_CHARACTERS = 200
_GAP = 2
"""Blanks between two columns of a table."""
_LONGEST_WORD = 44
"""Longer ones, as a URL, are folded all the same; ids are shorter."""
_WORDS = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d|\S+")
"""A time is one."""
_COLORS = {
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
    "skip": "dim",
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
_HEAT = ("#f2a7a0", "#f7cf9d", "#f4ee9f", "#cbe69c", "#8fd08f")
"""Backgrounds of scores, from 0 to 1; the text on them is black, which can be read in any theme."""
_HEAT_OF_16 = ("red", "red", "yellow", "green", "green")
"""The same where a terminal has 16 colours: all of the others would be its white."""
_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 24


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
    """Columns whose name begins with `#` are numbers, set to the right. `empty` is printed where there are no rows.

    A cell is folded between words alone, so that ids and times stay whole; what is too wide then leaves the screen's
    lines to the terminal.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        print_line(empty, style="dim")
        return
    console = _console()
    names = [name.removeprefix("#") for name in columns]
    texts = zip(names, *([cell.plain for cell in row] for row in cells), strict=True)
    widths = _widths([list(column) for column in texts], console.width)
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for name, shown, width in zip(columns, names, widths, strict=True):
        table.add_column(shown, justify="right" if name[:1] == "#" else "left", overflow="fold", width=width)
    for row in cells:
        table.add_row(*row)
    console.width = max(console.width, _total(widths))
    console.print(table)


def notes() -> Console:
    """The console for progress and notes."""
    return Console(stderr=True)


def percent(score: float | None) -> str:
    return "-" if score is None else f"{100 * score:.1f}%"


def heat(score: float | None) -> Text:
    """As `percent`, on a colour from red to green. There is none in a pipe and with NO_COLOR."""
    if score is None:
        return Text(percent(None), style="dim")
    place = min(len(_HEAT) - 1, max(0, int(score * len(_HEAT))))
    heats = _HEAT_OF_16 if _console().color_system == "standard" else _HEAT
    return Text(percent(score), style=f"black on {heats[place]}")


def curve(values: Sequence[float]) -> str:
    """`2.31 > 0.84 > 0.52 (150 steps)`: first, middle, last; on a terminal that can draw, with the line itself."""
    if not values:
        return ""
    shown = " > ".join(f"{values[step]:.3g}" for step in (0, len(values) // 2, -1))
    console = _console()
    drawn = f"{sparkline(values)} " if console.is_terminal and not console.no_color and _can_draw(console) else ""
    return f"{drawn}{shown} ({counted(len(values), 'step')})"


def sparkline(values: Sequence[float]) -> str:
    """A curve in one line of text, from the least value to the largest: `[3, 2, 1]` is `█▅▁`.

    Of more values than there is room for, each place shows the mean of its part.
    """
    places = min(len(values), _MOST_BARS)
    bounds = [len(values) * place // places for place in range(places + 1)]
    means = [sum(values[begin:end]) / (end - begin) for begin, end in pairwise(bounds)]
    least, span = min(means), max(means) - min(means)
    return "".join(_BARS[round((mean - least) / span * (len(_BARS) - 1)) if span else 0] for mean in means)


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


def moment_in(iso: str, zone: str) -> str:
    """A time in a zone of its own, with the offset: `2026-03-29 03:00 +0200`."""
    from zoneinfo import ZoneInfo

    return datetime.fromisoformat(iso).astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M %z")


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Widths of columns by their texts: what they need in one line, or less where there is no room for all of them."""
    wanted = [max(cell_len(text) for text in texts) for texts in columns]
    least = [max(_longest_word(text) for text in texts) for texts in columns]
    spare = max(0, room - _total(least))
    widths, folded = list(least), sorted(range(len(columns)), key=lambda place: wanted[place] - least[place])
    for left, place in zip(range(len(folded), 0, -1), folded, strict=True):  # what is missing little, first
        more = min(wanted[place] - least[place], spare // left)
        widths[place] += more
        spare -= more
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _longest_word(text: str) -> int:
    return min(_LONGEST_WORD, max((cell_len(word) for word in _WORDS.findall(text)), default=0))


def _cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    if value is None or value == "":
        return Text("-", style="dim")
    text = str(value)
    return Text(text, style=_COLORS.get(text, ""))


def _can_draw(console: Console) -> bool:
    """Whether its encoding has the characters of a sparkline."""
    try:
        _BARS.encode(console.encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def _console() -> Console:
    console = Console()
    # A pipe has no width; 80 columns would fold names and ids that a script looks for.
    return console if console.is_terminal else Console(width=_PIPE_COLUMNS)
