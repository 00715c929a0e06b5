"""Points of latents as a picture, coloured by group: no script, and the groups' sizes stand in the legend.

The axes of a projection have no unit, so none is drawn; each fills its side of the picture.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

SIDE, MARGIN = 340, 8
"""Pixels of the picture, and beside the outermost points."""
HUES = 8
"""Colours that there are; further groups begin anew."""
MOST_DOTS = 800
"""Points of a picture at most; of more, evenly drawn ones are shown."""


@dataclass(frozen=True)
class DotGroup:
    name: str
    hue: int
    points: int
    """How many there are, of which the picture may show some."""
    dots: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Scatter:
    title: str
    groups: Sequence[DotGroup]


def draw_scatter(title: str, points: Sequence[tuple[float, float]], groups: Sequence[str]) -> Scatter:
    """The picture of points, each in the group that stands at its place."""
    counts = Counter(groups)
    xs, ys = _pixels([x for x, _ in points]), _pixels([y for _, y in points])
    shown = range(0, len(points), max(1, -(-len(points) // MOST_DOTS)))
    dots: dict[str, list[tuple[int, int]]] = {name: [] for name in sorted(counts)}
    for place in shown:
        dots[groups[place]].append((xs[place], ys[place]))
    named = enumerate(dots.items())
    return Scatter(title, [DotGroup(name, place % HUES, counts[name], found) for place, (name, found) in named])


def _pixels(values: Sequence[float]) -> list[int]:
    least, most = min(values, default=0.0), max(values, default=0.0)
    span = most - least
    return [round(MARGIN + (SIDE - 2 * MARGIN) * ((value - least) / span if span else 0.5)) for value in values]
