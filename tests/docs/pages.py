"""The pages that people read, and what stands in them as code."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "packages").glob("*/README.md")])
_BLOCK = re.compile(r"```\w*\n(.*?)```", re.DOTALL)


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[str]:
    """What stands between fences, each block with its lines that end in a backslash joined to the next."""
    return [block.replace("\\\n", " ") for block in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def spans(page: Path) -> list[str]:
    """What stands between backticks in running text, on one line."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def section(page: str, heading: str) -> str:
    """The text of a page from a heading of any depth to the next one, or to the end."""
    _, found, rest = (ROOT / page).read_text(encoding="utf-8").partition(f"# {heading}\n")
    assert found, f"{page} has no heading {heading!r}"
    return re.split(r"\n#+ ", rest)[0]


def table(page: str, head: str) -> tuple[list[str], list[list[str]]]:
    """A page's only table whose head begins with `head`: the head's cells, and those of its rows."""
    text = (ROOT / page).read_text(encoding="utf-8")
    [(first, rows)] = re.findall(rf"^(\| {re.escape(head)} \|.*)\n\|[-| ]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return _cells(first), [_cells(row) for row in rows.splitlines()]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]


def event_fields() -> dict[str, list[str]]:
    """The fields of each event's `data`, as docs/webhooks.md names them, in its order."""
    _, rows = table("docs/webhooks.md", "event")
    return {
        event: re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", fields))
        for events, _, fields in rows
        for event in re.findall(r"`(\w+\.\w+)`", events)
    }
