"""`python -m bench.learning.report`: `docs/results.md` from the cells. Numbers only; what a person has to say about
them stands between two marks in the page, and is kept.
"""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.learning import sections
from bench.learning.cells import RESULTS, Cells, stored_plans
from bench.learning.outcome import write_outcome
from bench.learning.plots import draw

PAGE = Path(__file__).parent.parent.parent / "docs" / "results.md"
_BEGIN, _END = "<!-- by hand: begin -->", "<!-- by hand: end -->"
_NOTHING_SAID = "_Nothing was said about these numbers yet._"


def write_page(cells: Cells, document: dict[str, Any], page: Path) -> None:
    """Write the page and its figures, in a folder of the page's name; the part by hand stays as it is."""
    said = _said_by_hand(page)
    figures = draw(document, page.with_suffix("")) if document["methods"] else []
    parts = [
        sections.heading(cells, document),
        f"## What to make of it\n\n{_BEGIN}\n{said}\n{_END}",
        sections.claims(document),
        sections.all_methods(document),
        sections.by_task(document),
        sections.matrices(document),
        sections.costs(cells, document),
        sections.failures(document),
        *(f"![{name.removesuffix('.svg')}]({page.stem}/{name})" for name in figures),
        sections.how(cells, document),
    ]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n")


def _said_by_hand(page: Path) -> str:
    text = page.read_text() if page.is_file() else ""
    if _BEGIN not in text or _END not in text:
        return _NOTHING_SAID
    return text.split(_BEGIN, 1)[1].split(_END, 1)[0].strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", help="digest; the plan with most scores by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    plans = stored_plans(arguments.results)
    digest = arguments.plan or next(iter(plans), None)
    if digest not in plans:
        raise SystemExit(f"no results of plan {digest}; there are {sorted(plans)}. Run python -m bench.learning first.")
    cells = Cells(plans[digest], arguments.results)
    write_page(cells, write_outcome(cells, arguments.seeds), arguments.page)
    Console().print(f"written to {arguments.results.parent / 'learning.json'} and {arguments.page}")


if __name__ == "__main__":
    main()
