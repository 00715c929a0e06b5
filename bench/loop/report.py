"""What the run showed: `bench/results/loop.json`, a table in Markdown, and the picture of the hours.

Shares have Wilson's intervals. The gain is that of the last champion over the bare base on the same games of the test,
with the paired interval that gates use (Newcombe's, `registry.gates.paired`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib import rcParams
from matplotlib.figure import Figure

from bench.loop.agent import Result
from memgen.generation.intervals import wilson_interval
from registry.gates.paired import compare_pairs

_OURS, _POISON, _BASE = "#1f6f8b", "#b03a2e", "#b0a18f"


@dataclass(frozen=True)
class Hour:
    """One hour of the loop: games played for the first time, and what was made of them."""

    hour: int
    games: int
    won: int
    answered_by: Mapping[str, int]
    """Games by the version that answered them; `base` is the bare base."""
    poisoned: int = 0
    """Its last games, whose rewards were told the wrong way round."""
    trained: str | None = None
    """The version that was trained of it."""
    verdict: str | None = None
    """What became of that version: `promoted`, `rejected`, `stopped`, or what else its gate or canary said."""
    why: str = ""
    champion: str | None = None
    """Who serves at the hour's end."""
    test_won: int | None = None
    """Games of the test that it wins; None if nobody asked."""
    seconds: float = 0.0


def share_cell(won: int, games: int) -> str:
    """`12 of 60, 20.0% [11.8-31.8]`."""
    low, high = wilson_interval(won, games)
    return f"{100 * won / games:.1f}% [{100 * low:.0f}-{100 * high:.0f}]"


def gain(before: Sequence[Result], after: Sequence[Result]) -> tuple[float, tuple[float, float]]:
    """Points gained on the same games, and their 95% interval.

    Two games of which one was won before and both after are a gain of 50 points.

    Raises:
        ValueError: they are of other games, or in another order.
    """
    if [r.game for r in before] != [r.game for r in after]:
        raise ValueError("the two tests are of other games, or in another order; expected the same games")
    paired = compare_pairs([float(r.won) for r in before], [float(r.won) for r in after], level=0.05)
    points = 100 * (sum(r.won for r in after) - sum(r.won for r in before)) / len(after)
    return points, (100 * paired.low, 100 * paired.high)


def table(hours: Sequence[Hour], test_games: int) -> str:
    """The hours as Markdown."""
    head = ("hour", "answered by", "games won", "trained", "verdict", "champion then", f"wins of {test_games} unseen")
    rows = [head, ("---",) * len(head), *(_row(hour, test_games) for hour in hours)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(hour: Hour, test_games: int) -> tuple[str, ...]:
    by = ", ".join(f"{name} ({count})" for name, count in hour.answered_by.items())
    test = "" if hour.test_won is None else share_cell(hour.test_won, test_games)
    name = f"{hour.hour}, poisoned" if hour.poisoned else str(hour.hour)
    verdict = hour.verdict or ""
    return name, by, share_cell(hour.won, hour.games), hour.trained or "", verdict, hour.champion or "base", test


def draw(document: Mapping[str, Any], path: Path) -> None:
    """The share of games won by hour: played for the first time in it, and of the test by the champion at its end."""
    rcParams.update({"svg.hashsalt": "loop", "svg.fonttype": "none", "font.size": 9})  # equal numbers, equal file
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    panel = figure.subplots()
    hours = document["hours"]
    live = [100 * hour["won"] / hour["games"] for hour in hours]
    limits = [wilson_interval(hour["won"], hour["games"]) for hour in hours]
    colours = [_POISON if hour["poisoned"] else _OURS for hour in hours]
    panel.bar([hour["hour"] for hour in hours], live, color=colours, width=0.6, alpha=0.55)
    for hour, (low, high) in zip(hours, limits, strict=True):
        panel.plot([hour["hour"]] * 2, [100 * low, 100 * high], color="black", linewidth=1)
    tested = [hour for hour in hours if hour["test_won"] is not None]
    shares = [100 * hour["test_won"] / document["test_games"] for hour in tested]
    panel.plot([h["hour"] + 0.5 for h in tested], shares, "o-", color="black", label="unseen games, champion then")
    base = 100 * document["base"]["won"] / document["test_games"]
    panel.axhline(base, color=_BASE, linewidth=1, label="unseen games, bare base")
    panel.axhline(100 * document["random"], color=_BASE, linewidth=1, linestyle=":", label="a random command a turn")
    for hour in hours:
        if hour["trained"]:
            panel.annotate(f"{hour['trained']}\n{hour['verdict']}", (hour["hour"], 2), ha="center", fontsize=7)
    panel.set_ylim(0, 100)
    panel.set_xticks([hour["hour"] for hour in hours])
    panel.set_xlabel("hour of the loop (red: rewards flipped)")
    panel.set_ylabel("games won, %")
    panel.legend(fontsize=7, loc="upper left")
    figure.savefig(path, metadata={"Date": None})


def hours_json(hours: Sequence[Hour]) -> list[dict[str, Any]]:
    return [asdict(hour) for hour in hours]
