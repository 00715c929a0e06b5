"""Tables and figures as the pages of results write them."""

from collections.abc import Callable, Iterable, Sequence


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
