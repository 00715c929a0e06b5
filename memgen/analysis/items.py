"""The held-out items that a version is analysed on: the same for everything that is compared. Knows no suite's rows."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memgen.errors import ConfigError
from memgen.evaluation.accuracy import HeldOutItem, ReadItem, read_items
from memgen.memory.host import AdapterHost
from memgen.tasks.graders import LIKELIHOOD


@dataclass(frozen=True)
class AnalysisItem:
    """A held-out item of a task.

    Raises:
        ConfigError: the task is scored by likelihood, so nothing is answered that could be right or wrong.
    """

    item_id: str
    """Names the item in every report; two versions are compared on items of equal ids."""
    task: str
    grader: dict[str, Any]
    """The task's grader spec."""
    held_out: HeldOutItem

    def __post_init__(self) -> None:
        if self.grader.get("kind") == LIKELIHOOD:
            raise ConfigError(
                f"task {self.task!r} is scored by likelihood, where nothing is answered; leave its items out"
            )


@dataclass(frozen=True)
class ReadAnalysisItem:
    """An item as the base reads it."""

    item: AnalysisItem
    read: ReadItem


def draw_items(items: Sequence[AnalysisItem], most: int, *, seed: int = 0) -> list[AnalysisItem]:
    """At most so many of the items, as evenly over their tasks as these have items, in the order in which they came.

    Raises:
        ConfigError: `most` is less than 1.
    """
    if most < 1:
        raise ConfigError(f"the most items are {most}; expected at least 1")
    rng = random.Random(seed)  # noqa: S311 - no secret
    queues: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        queues.setdefault(item.task, []).append(place)
    for places in queues.values():
        rng.shuffle(places)
    drawn: list[int] = []
    while len(drawn) < min(most, len(items)):
        for places in queues.values():
            if places and len(drawn) < most:
                drawn.append(places.pop())
    return [items[place] for place in sorted(drawn)]


def read_analysis_items(host: AdapterHost, items: Sequence[AnalysisItem]) -> list[ReadAnalysisItem]:
    """The items as the base reads them; one that it can't read says so in `read.trouble`."""
    read = read_items(host, [item.held_out for item in items])
    return [ReadAnalysisItem(item, one) for item, one in zip(items, read, strict=True)]
