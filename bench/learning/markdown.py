"""Tables and figures as the pages of results write them."""

from collections.abc import Callable, Iterable, Sequence

FEWEST_SEEDS = 3
"""Least number of seeds for an interval over seeds: of two, Student's t gives one that is wider than the scale."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of these cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def share(value: float | None) -> str:
    """`0.735` as `73.5%`; nothing for None."""
    return "" if value is None else f"{100 * value:.1f}%"


def points(value: float | None) -> str:
    """`-0.04` as `-4.0`; nothing for None."""
    return "" if value is None else f"{100 * value:+.1f}"


def interval(limits: Sequence[float] | None, show: Callable[[float], str]) -> str:
    """Both limits as `show` writes them; nothing for None."""
    return "" if limits is None else f"{show(limits[0])} to {show(limits[1])}"


def interval_over_seeds(
    limits: Sequence[float] | None, seeds: int, show: Callable[[float], str], scale: tuple[float, float]
) -> str:
    """As `interval`, cut at the ends of the scale; a dash below three seeds. `(-0.2, 0.4)` is `0.0% to 40.0%`."""
    if limits is None or seeds < FEWEST_SEEDS:
        return "-"
    low, high = scale
    return interval([min(max(limit, low), high) for limit in limits], show)
