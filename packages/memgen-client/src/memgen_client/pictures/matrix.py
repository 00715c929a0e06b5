"""The matrix R as a heat map: a row for the base and each version, a column for each task. Inline SVG, escaped."""

from collections.abc import Mapping, Sequence
from html import escape

_CELL_WIDTH, _CELL_HEIGHT, _HEAD, _SIDE = 92, 26, 28, 90
_LONGEST_NAME = 14

Cells = Mapping[str, float]
"""Scores by task."""


def matrix(tasks: Sequence[str], rows: Sequence[tuple[str, Cells]]) -> str:
    """`rows`: a name and its scores; a task that was not measured is an empty cell.

    A cell is as dark as its score is high, from 0 to 1; scores of a task that leave this range, from its lowest to its
    highest.
    """
    width, height = _SIDE + _CELL_WIDTH * len(tasks), _HEAD + _CELL_HEIGHT * len(rows)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' "
        "role='img' font-family='sans-serif' font-size='12'>",
        f"<title>{escape('Scores by version and task')}</title>",
    ]
    for column, task in enumerate(tasks):
        x = _SIDE + _CELL_WIDTH * column + _CELL_WIDTH / 2
        parts.append(_text(x, _HEAD - 10, _short(task), "middle", task))
    for row, (name, scores) in enumerate(rows):
        y = _HEAD + _CELL_HEIGHT * row
        parts.append(_text(_SIDE - 8, y + 17, _short(name), "end", name))
        for column, task in enumerate(tasks):
            if task in scores:
                depth = _depth(scores[task], [cells[task] for _, cells in rows if task in cells])
                parts.append(_square(_SIDE + _CELL_WIDTH * column, y, depth, scores[task]))
    return "".join([*parts, "</svg>"])


def _depth(score: float, column: Sequence[float]) -> float:
    """How dark a cell is, from 0 to 1."""
    low, high = min(0.0, *column), max(1.0, *column)
    if low < 0.0 or high > 1.0:
        low, high = min(column), max(column)
    return 0.5 if high == low else (score - low) / (high - low)


def _square(x: float, y: float, depth: float, score: float) -> str:
    ink = "#fff" if depth > 0.55 else "#111"
    return (
        f"<rect x='{x + 1:g}' y='{y + 1:g}' width='{_CELL_WIDTH - 2}' height='{_CELL_HEIGHT - 2}' rx='3' "
        f"fill='#1f5fa8' fill-opacity='{0.06 + 0.94 * depth:.2f}' stroke='#8885'/>"
        f"<text x='{x + _CELL_WIDTH / 2:g}' y='{y + 17:g}' text-anchor='middle' fill='{ink}'>{score:.3f}</text>"
    )


def _text(x: float, y: float, shown: str, anchor: str, whole: str) -> str:
    return (
        f"<text x='{x:g}' y='{y:g}' text-anchor='{anchor}' fill='currentColor'>"
        f"<title>{escape(whole)}</title>{escape(shown)}</text>"
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
