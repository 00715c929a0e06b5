"""Arms of a route: their shares as a bar, and their mean rewards with intervals. Inline SVG, escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _BAR, _LINE, _SIDE = 420, 20, 26, 90
_COLOURS = ("#1f5fa8", "#c46a1b", "#3c8a4e", "#8a3c7a")


@dataclass(frozen=True)
class Measured:
    """What an arm got so far."""

    name: str
    mean: float | None
    low: float
    high: float


def shares(arms: Sequence[tuple[str, float]]) -> str:
    """One bar, cut by the arms' weights; an arm of weight 0 has a legend and no part."""
    parts = [_open(_WIDTH, _BAR + 20, "Shares of the arms")]
    total, x = sum(weight for _, weight in arms) or 1.0, 0.0
    for place, (_, weight) in enumerate(arms):
        width = _WIDTH * weight / total
        parts.append(f"<rect x='{x:g}' y='0' width='{width:g}' height='{_BAR}' fill='{_colour(place)}'/>")
        x += width
    legend = "  ".join(f"{name}: {100 * weight:g}%" for name, weight in arms)
    parts.append(f"<text x='0' y='{_BAR + 15}' fill='currentColor'>{escape(legend)}</text></svg>")
    return "".join(parts)


def intervals(arms: Sequence[Measured]) -> str:
    """A line for each arm from the low to the high end of its interval, a dot at its mean; from 0 to 1."""
    parts = [_open(_SIDE + _WIDTH + 20, _LINE * len(arms) + 20, "Mean rewards with intervals")]
    for place, arm in enumerate(arms):
        y, colour = _LINE * place + _LINE / 2, _colour(place)
        low, high = (_SIDE + _WIDTH * min(max(end, 0.0), 1.0) for end in (arm.low, arm.high))
        parts.append(
            f"<text x='{_SIDE - 8}' y='{y + 4:g}' text-anchor='end' fill='currentColor'>{escape(arm.name)}</text>"
        )
        parts.append(f"<line x1='{low:g}' y1='{y:g}' x2='{high:g}' y2='{y:g}' stroke='{colour}' stroke-width='3'/>")
        if arm.mean is not None:
            parts.append(f"<circle cx='{_SIDE + _WIDTH * arm.mean:g}' cy='{y:g}' r='5' fill='{colour}'/>")
    foot = _LINE * len(arms) + 14
    ticks = "".join(
        f"<text x='{_SIDE + _WIDTH * at:g}' y='{foot}' text-anchor='middle' fill='currentColor'>{at:g}</text>"
        for at in (0, 0.5, 1)
    )
    return "".join([*parts, ticks, "</svg>"])


def _open(width: float, height: float, title: str) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' width='{width:g}' "
        f"height='{height:g}' role='img' font-family='sans-serif' font-size='12'><title>{escape(title)}</title>"
    )


def _colour(place: int) -> str:
    return _COLOURS[place % len(_COLOURS)]
