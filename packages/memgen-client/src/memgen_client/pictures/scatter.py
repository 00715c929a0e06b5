"""Points on two axes, coloured by group. Inline SVG, escaped; no axis has a unit, so none is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_SIDE, _MARGIN, _LINE = 320, 8, 16
_COLOURS = ("#1f5fa8", "#c46a1b", "#3c8a4e", "#8a3c7a", "#b3261e", "#4f6d7a", "#8c7a1a", "#2a8f8f")
_MOST_DOTS = 1500


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    group: str


def scatter(title: str, dots: Sequence[Dot]) -> str:
    """A picture of the dots with a legend of their groups; of very many, evenly drawn ones."""
    if not dots:
        return f"<p>{escape(title)}: no points</p>"
    groups = list(dict.fromkeys(dot.group for dot in dots))
    drawn = dots[:: -(-len(dots) // _MOST_DOTS)]
    left, width = min(dot.x for dot in dots), max(dot.x for dot in dots) - min(dot.x for dot in dots)
    top, height = min(dot.y for dot in dots), max(dot.y for dot in dots) - min(dot.y for dot in dots)
    tall = _SIDE + _LINE * (len(groups) + 1)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_SIDE} {tall}' width='{_SIDE}' height='{tall}' "
        f"role='img' font-family='sans-serif' font-size='12'><title>{escape(title)}</title>",
        f"<text x='{_MARGIN}' y='{_LINE - 4}' fill='currentColor'>{escape(title)}</text>",
    ]
    for dot in drawn:
        x = _MARGIN + (_SIDE - 2 * _MARGIN) * ((dot.x - left) / width if width else 0.5)
        y = _LINE + _MARGIN + (_SIDE - 2 * _MARGIN) * ((dot.y - top) / height if height else 0.5)
        colour = _colour(groups.index(dot.group))
        parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2.5' fill='{colour}' fill-opacity='0.7'/>")
    for place, group in enumerate(groups):
        y = _SIDE + _LINE * (place + 2) - 4
        parts.append(
            f"<circle cx='{_MARGIN}' cy='{y - 4}' r='4' fill='{_colour(place)}'/>"
            f"<text x='{2 * _MARGIN + 2}' y='{y}' fill='currentColor'>{escape(group)}</text>"
        )
    return "".join([*parts, "</svg>"])


def _colour(place: int) -> str:
    return _COLOURS[place % len(_COLOURS)]
