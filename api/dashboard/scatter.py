"""Points of latents as a picture, by colour and shape of their group: no script, and sizes stand in the legend."""

from collections.abc import Sequence
from dataclasses import dataclass

from memgen_client.pictures.scatter import DotGroup, place_dots

SIDE, MARGIN = 340, 8
"""Pixels of the picture, and beside the outermost points."""
HUES = 8
"""Colours that the style sheet has; further groups begin anew."""
MOST_DOTS = 800
"""Points of a picture at most."""


@dataclass(frozen=True)
class Scatter:
    title: str
    groups: Sequence[DotGroup]


def draw_scatter(title: str, points: Sequence[tuple[float, float]], groups: Sequence[str]) -> Scatter:
    """The picture of points, each in the group that stands at its place."""
    return Scatter(title, place_dots(points, groups, side=SIDE, margin=MARGIN, most=MOST_DOTS))
