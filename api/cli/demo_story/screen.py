"""What the demo shows: tables and bars. Knows nothing of how the numbers were made."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from api.http.json_object import JsonObject
from api.local.state import Event
from memgen.generation.intervals import wilson_interval

console = Console()


def chapter(title: str) -> None:
    console.print()
    console.rule(Text(title, style="bold"), align="left")


def say(text: str) -> None:
    console.print(Text(text))


@contextmanager
def starting() -> Iterator[Callable[[Event], None]]:
    """A spinner while the servers start."""
    with console.status("starting the servers") as shown:

        def on_event(event: Event) -> None:
            shown.update(f"starting the servers: {event.name} {event.state}")

        yield on_event
    say("PostgreSQL, Valkey, S3, API and workers are running on this machine.")


@contextmanager
def counting(title: str, total: int) -> Iterator[Callable[[Iterable[JsonObject]], Iterator[JsonObject]]]:
    """A bar over the items that are taken from the wrapped iterable."""
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task(title, total=total)

        def counted(items: Iterable[JsonObject]) -> Iterator[JsonObject]:
            for item in items:
                yield item
                progress.advance(bar)

        yield counted


def show_import(report: JsonObject) -> None:
    table = Table("accepted", "duplicate", "refused", "held out")
    table.add_row(*(str(report[key]) for key in ("accepted", "duplicate", "refused", "held_out")))
    console.print(table)


def show_scores(rows: Sequence[JsonObject], *, is_stopped: bool) -> None:
    """R with its baselines; each measured share with its 95% interval.

    Args:
        is_stopped: whether the gate rejected the one memory for what it forgot.
    """
    single = "one memory, rejected" if is_stopped else "one memory"
    table = Table("held-out accuracy", "items", "majority", "base", "v1", single, "v2")
    for row in rows:
        cells = [_share(row[key], row["items"]) for key in ("base", "v1", "one_memory", "v2")]
        table.add_row(row["name"], str(row["items"]), f"{100 * row['majority']:.1f}%", *cells)
    console.print(table)
    say(
        "In brackets the 95% interval. v1 learned the first task; the one memory went on with the second alone; v2 has "
        "a memory for each task, and the prompt says which one answers."
    )


def show_metrics(metrics: JsonObject) -> None:
    table = Table("ACC", "BWT", *(f"forgetting of {task}" for task in metrics["forgetting"]))
    forgotten = [_points(value) for value in metrics["forgetting"].values()]
    table.add_row(f"{100 * metrics['acc']:.1f}%", _points(metrics["bwt"]), *forgotten)
    console.print(table)


def show_gate(gate: JsonObject) -> None:
    passed = "passed" if gate["passed"] else "rejected"
    console.print(Text(f"Gate: {passed}", style="bold green" if gate["passed"] else "bold red"))
    for reason in gate["reasons"]:
        say(f"  {reason}")


def show_chat(task: str, question: str, answers: Sequence[JsonObject], expert: str) -> None:
    table = Table("answered by", escape(f"{task}: {_short(question, 160)}"), show_lines=True)
    for answer in answers:
        table.add_row(answer["version"], Text(_short(answer["text"], 300)))
    table.add_row("expert", Text(_short(expert, 300)), style="dim")
    console.print(table)


def show_history(moves: Sequence[JsonObject]) -> None:
    table = Table("when", "move", "from", "to", "by", "why")
    for move in moves:
        origin = str(move["from_version"]) if move["from_version"] else "-"
        table.add_row(move["at"][:19], move["kind"], origin, str(move["to_version"]), move["actor"], move["reason"])
    console.print(table)


def _share(score: float, items: int) -> str:
    low, high = wilson_interval(score * items, items)
    return f"{100 * score:.1f}% [{100 * low:.0f}-{100 * high:.0f}]"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f} points"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
