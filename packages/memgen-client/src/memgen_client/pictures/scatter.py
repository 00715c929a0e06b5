"""Points on two axes, by colour and shape of their group. Inline SVG, escaped; no axis has a unit, so none is drawn.

`place_dots` says where the dots stand, for whoever draws them in another way.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_SIDE, _MARGIN, _LINE = 320, 8, 16
_COLOURS = ("#1f5fa8", "#c46a1b", "#3c8a4e", "#8a3c7a", "#b3261e", "#4f6d7a", "#8c7a1a", "#2a8f8f")
_SHAPES = (
    "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "m-2.7-2.7h5.4v5.4h-5.4z",
    "m0-3.6l3.4 5.8h-6.8z",
    "m0-3.8l3.8 3.8l-3.8 3.8l-3.8-3.8z",
    "m0 3.6l3.4-5.8h-6.8z",
    "m-1-3.6h2v2.6h2.6v2h-2.6v2.6h-2v-2.6h-2.6v-2h2.6z",
    "m-3.2-3.2h6.4l-6.4 6.4h6.4z",
)
"""Disc, square, triangle, diamond, triangle on its tip, plus and hourglass, as paths around a point: whoever can't tell
colours apart tells these. Eight colours and seven shapes have no divisor in common, so 56 groups differ."""
_MOST_DOTS = 1500


@dataclass(frozen=True)
class DotGroup:
    """Points of one colour and shape."""

    name: str
    shape: str
    """Path around each of its dots."""
    points: int
    """How many there are, of which the picture may show some."""
    dots: Sequence[tuple[float, float]]


def place_dots(
    points: Sequence[tuple[float, float]], groups: Sequence[str], *, side: int, margin: int, most: int
) -> list[DotGroup]:
    """Points in a square picture, by the group that stands at each one's place; the groups are in order of their names.

    Args:
        side: length of the picture's sides.
        margin: beside the outermost points; each axis fills what is between.
        most: dots that are shown; of more, evenly drawn ones.
    """
    counts = Counter(groups)
    xs, ys = _spread([x for x, _ in points], side, margin), _spread([y for _, y in points], side, margin)
    dots: dict[str, list[tuple[float, float]]] = {name: [] for name in sorted(counts)}
    for place in range(0, len(points), max(1, -(-len(points) // most))):
        dots[groups[place]].append((xs[place], ys[place]))
    named = enumerate(dots.items())
    return [DotGroup(name, _SHAPES[place % len(_SHAPES)], counts[name], found) for place, (name, found) in named]


def scatter(title: str, points: Sequence[tuple[float, float]], groups: Sequence[str]) -> str:
    """A picture of the points, each in the group that stands at its place, with a legend; of very many, evenly drawn
    ones."""
    if not points:
        return f"<p>{escape(title)}: no points</p>"
    placed = place_dots(points, groups, side=_SIDE, margin=_MARGIN, most=_MOST_DOTS)
    tall = _SIDE + _LINE * (len(placed) + 1)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_SIDE} {tall}' width='{_SIDE}' height='{tall}' "
        f"role='img' font-family='sans-serif' font-size='12'><title>{escape(title)}</title>",
        f"<text x='{_MARGIN}' y='{_LINE - 4}' fill='currentColor'>{escape(title)}</text>",
    ]
    for place, group in enumerate(placed):
        colour, y = _COLOURS[place % len(_COLOURS)], _SIDE + _LINE * (place + 2) - 4
        parts += [
            f"<path d='M{x:.1f} {_LINE + down:.1f}{group.shape}' fill='{colour}' fill-opacity='0.7'/>"
            for x, down in group.dots
        ]
        parts.append(
            f"<path d='M{_MARGIN} {y - 4}{group.shape}' fill='{colour}'/>"
            f"<text x='{2 * _MARGIN + 2}' y='{y}' fill='currentColor'>{escape(group.name)}</text>"
        )
    return "".join([*parts, "</svg>"])


def _spread(values: Sequence[float], side: int, margin: int) -> list[float]:
    least, most = min(values, default=0.0), max(values, default=0.0)
    span = most - least
    return [margin + (side - 2 * margin) * ((value - least) / span if span else 0.5) for value in values]
