"""The held-out items that an analysis asks: drawn once, so that every attempt of the job asks the same ones."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from memgen.analysis.items import AnalysisItem, draw_items
from memgen.evaluation.accuracy import item_of
from registry.database import one_of, transaction
from registry.datasets import suites
from registry.errors import EmptyDataset
from registry.json_text import jsonl_lines
from registry.models import Task, Trajectory
from registry.versions.analyses import ITEMS_FILE
from workers.analysis_parts import AnalysisParts
from workers.reward_items import with_reward
from workers.runner import Running

_PART = "items"


@dataclass(frozen=True)
class DrawnItems:
    items: tuple[AnalysisItem, ...]
    suites: Mapping[str, int]
    """Number of the suite by task."""


def drawn_items(running: Running, tasks: Sequence[Task], parts: AnalysisParts, *, most: int, seed: int) -> DrawnItems:
    """The items, of all tasks together `most`. An attempt whose items were deleted since draws anew and begins anew.

    Raises:
        EmptyDataset: no task has any that answers can be graded on.
    """
    tasks = with_reward(running, tasks)
    for _ in range(2):
        drawn = parts.part(_PART, lambda folder: _draw(running, tasks, folder, most, seed))
        lines = [json.loads(line) for line in jsonl_lines((drawn / ITEMS_FILE).read_bytes())]
        with transaction(running.services.sessions) as session:
            items = _load(session, tasks, [line["item"] for line in lines])
        if len(items) == len(lines):
            return DrawnItems(items, {line["task"]: line["suite"] for line in lines})
        running.event("items were deleted since an earlier attempt; the analysis begins anew", level="warning")
        parts.clear()
    raise EmptyDataset("items were deleted while they were drawn, twice; start the job again")


def _draw(running: Running, tasks: Sequence[Task], folder: Path, most: int, seed: int) -> None:
    every: list[AnalysisItem] = []
    numbers: dict[str, int] = {}
    for task in tasks:
        with transaction(running.services.sessions) as session:
            suite = suites.freeze_suite(session, session.get_one(Task, task.id))
            if suite is None:
                running.event(f"task {task.name!r} has no held-out items and is left out", level="warning")
                continue
            numbers[task.name] = suite.number
            every += [_item(task, row) for row in suites.suite_trajectories(session, suite.id)]
    if not every:
        raise EmptyDataset(
            "no task of the analysis has held-out items whose answers can be graded; upload some, or name other tasks"
        )
    lines = [
        {"item": item.item_id, "task": item.task, "suite": numbers[item.task]}
        for item in draw_items(every, most, seed=seed)
    ]
    (folder / ITEMS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))


def _load(session: Session, tasks: Sequence[Task], ids: Sequence[str]) -> tuple[AnalysisItem, ...]:
    """The items that are still there, in the order of `ids`."""
    by_task = {task.id: task for task in tasks}
    rows = session.scalars(select(Trajectory).where(one_of(Trajectory.id, [uuid.UUID(each) for each in ids])))
    found = {str(row.id): _item(by_task[row.task_id], row) for row in rows}
    return tuple(found[each] for each in ids if each in found)


def _item(task: Task, row: Trajectory) -> AnalysisItem:
    return AnalysisItem(str(row.id), task.name, task.grader, item_of(row.messages, row.tools, row.details))
