"""`python -m bench.learning.report`: the pages of results from the cells.

`docs/results.md` is written whole. `research/learning.md` has every table, and between two marks the notes of whoever
ran the benchmark, which are kept as they are. Each page's figures lie in a folder of the page's name.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import report
from bench.learning import plots, sections
from bench.learning.cells import RESULTS, Cells, stored_plans
from bench.learning.outcome import write_outcome
from bench.learning.page import SeparateLoras, page_text

_ROOT = report.RESULTS.parent.parent
PAGE = _ROOT / "docs" / "results.md"
LAB_BOOK = _ROOT / "research" / "learning.md"
_SEPARATE_LORAS = report.RESULTS / "lora_a_task.json"
_BEGIN, _END = "<!-- by hand: begin -->", "<!-- by hand: end -->"
_NO_NOTES = "_No notes on these numbers yet._"


def write_pages(cells: Cells, document: dict[str, Any], page: Path, lab_book: Path) -> None:
    """Write both pages and their figures."""
    write_page(cells, document, page)
    write_lab_book(cells, document, lab_book)


def write_page(cells: Cells, document: dict[str, Any], page: Path) -> None:
    """Write the page of one table and its figure; nothing of what the page was before is kept."""
    figures = plots.draw(document, page.with_suffix(""), plots.OF_THE_PAGE) if document["methods"] else []
    separate = SeparateLoras.from_json(json.loads(_SEPARATE_LORAS.read_text())) if _SEPARATE_LORAS.is_file() else None
    figure = f"{page.stem}/{figures[0]}" if figures else None
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(page_text(cells, document, separate, figure))


def write_lab_book(cells: Cells, document: dict[str, Any], lab_book: Path) -> None:
    """Write every table and the other figures; the notes between the marks stay as they are."""
    notes = _notes(lab_book)
    figures = plots.draw(document, lab_book.with_suffix(""), plots.OF_THE_LAB_BOOK) if document["methods"] else []
    parts = [
        sections.heading(cells, document),
        f"## What to make of it\n\n{_BEGIN}\n{notes}\n{_END}",
        sections.claims(document),
        sections.all_methods(document),
        sections.by_task(document),
        sections.matrices(document),
        sections.costs(cells, document),
        sections.failures(document),
        *(f"![{name.removesuffix('.svg')}]({lab_book.stem}/{name})" for name in figures),
        sections.how(cells, document),
    ]
    lab_book.parent.mkdir(parents=True, exist_ok=True)
    lab_book.write_text("\n\n".join(parts) + "\n")


def _notes(lab_book: Path) -> str:
    """What stands between the marks."""
    text = lab_book.read_text() if lab_book.is_file() else ""
    if _BEGIN not in text or _END not in text:
        return _NO_NOTES
    return text.split(_BEGIN, 1)[1].split(_END, 1)[0].strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", help="digest; the plan with most scores by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--lab-book", type=Path, default=LAB_BOOK)
    arguments = parser.parse_args()
    plans = stored_plans(arguments.results)
    digest = arguments.plan or next(iter(plans), None)
    if digest not in plans:
        raise SystemExit(f"no results of plan {digest}; there are {sorted(plans)}. Run python -m bench.learning first.")
    cells = Cells(plans[digest], arguments.results)
    write_pages(cells, write_outcome(cells, arguments.seeds), arguments.page, arguments.lab_book)
    written = arguments.results.parent / "learning.json"
    Console().print(f"written to {written}, {arguments.page} and {arguments.lab_book}")


if __name__ == "__main__":
    main()
