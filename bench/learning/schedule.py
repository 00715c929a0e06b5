"""Which pieces of work a comparison needs, in what order; what is done is not done again.

The end of training and each task just after it was learned come first, for all methods and seed after seed: ACC and
BWT. Then the task before it is learned (FWT) and ordinary text, then the rest of the matrix. Cheap methods come before
expensive ones (`systems.METHODS`).
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.learning.cells import Cell, Cells
from bench.learning.general import note_text
from bench.learning.material import VALIDATION
from bench.learning.plan import LearningPlan
from bench.learning.serving import SystemServing
from bench.learning.systems import METHODS, BareBase, Routed, System, Trained, tuning_candidates
from bench.learning.training import ensure_trained

TRAIN, SCORE, VALIDATE, TEXT = "train", "score", "validate", "text"


@dataclass(frozen=True)
class Unit:
    """One piece of work, with one cell as its result."""

    action: str
    """`train`, `score`, `validate` or `text`."""
    system: System
    task: int = 0
    """Task that is scored; 0 for other actions."""

    def cell(self, cells: Cells) -> Cell | None:
        """The result, None if the unit is not done."""
        if self.action == TRAIN:
            return cells.trained(self.system)
        if self.action == TEXT:
            return cells.text(self.system)
        label = VALIDATION if self.action == VALIDATE else cells.plan.labels[self.task]
        return cells.scored(self.system, label)

    def kind(self, cells: Cells) -> tuple[str, ...]:
        """Units of one kind take about equally long."""
        what = type(self.system).__name__
        if isinstance(self.system, Trained):
            what = f"{self.system.family} {self.system.chain[-1].kind if self.action == TRAIN else ''}"
        last = self.system.chain[-1].task if isinstance(self.system, Trained) else 0
        task = last if self.action == TRAIN else self.task
        return (self.action, what, cells.plan.labels[task])

    def describe(self, cells: Cells) -> str:
        """The unit in words, for whoever watches the run."""
        where = f" on {cells.plan.labels[self.task]}" if self.action == SCORE else ""
        return f"{self.action} {self.system.name}{where}"


def chosen_rate(cells: Cells) -> float | None:
    """The learning rate of LoRA SFT: best on validation items, the smaller of equals; None if that is not known yet."""
    candidates = tuning_candidates(cells.plan)
    if len(candidates) == 1:
        return candidates[0].rate
    scored = [(cells.scored(candidate, VALIDATION), candidate.rate) for candidate in candidates]
    known = [(cell["score"], -rate) for cell, rate in scored if cell is not None and rate is not None]
    return -max(known)[1] if len(known) == len(candidates) else None


def units(cells: Cells, methods: Sequence[str], seeds: Sequence[int]) -> list[Unit]:
    """All units in order, each once. While the rate of LoRA SFT is open, its later units are named by the first."""
    return list(dict.fromkeys(_units(cells, methods, seeds)))


def _units(cells: Cells, methods: Sequence[str], seeds: Sequence[int]) -> Iterator[Unit]:
    plan = cells.plan
    rate = chosen_rate(cells) or plan.lora_rates[0]
    # FWT, the router and the loss of text are compared with the bare base, whichever methods are chosen.
    yield from (Unit(SCORE, BareBase(), task) for task in range(len(plan.tasks)))
    yield Unit(TEXT, BareBase())
    for seed in seeds:
        for name in methods:
            if len(plan.lora_rates) > 1 and name.startswith("lora"):
                for candidate in tuning_candidates(plan):
                    yield from (Unit(TRAIN, candidate), Unit(VALIDATE, candidate))
            for stage, task in _deciding(plan):
                yield from _scored(METHODS[name].system(stage, task, seed, rate), task)
        for name in methods:
            for task in range(1, len(plan.tasks)):
                yield from _scored(METHODS[name].system(task - 1, task, seed, rate), task)
            last = len(plan.tasks) - 1
            yield Unit(TEXT, METHODS[name].system(last, last, seed, rate))
    for seed in seeds:
        for name in methods:
            for stage in range(len(plan.tasks)):
                for task in range(len(plan.tasks)):
                    yield from _scored(METHODS[name].system(stage, task, seed, rate), task)


def _deciding(plan: LearningPlan) -> Iterator[tuple[int, int]]:
    """(stage, task) of the scores that ACC and BWT need; the diagonal first, for it trains from stage to stage."""
    last = len(plan.tasks) - 1
    yield from ((task, task) for task in range(last))
    yield from ((last, task) for task in range(len(plan.tasks)))


def _scored(system: System, task: int) -> Iterator[Unit]:
    """The units of a score: the trainings that it needs come first."""
    if isinstance(system, Trained):
        yield from (Unit(TRAIN, one) for one in system.lineage)
    if isinstance(system, Routed):
        yield from (Unit(TRAIN, one) for part in system.parts for one in part.lineage)
        if task <= system.stage:
            yield Unit(SCORE, system.parts[task], task)
    yield Unit(SCORE, system, task)


def run(
    serving: SystemServing,
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    budget_seconds: float | None = None,
    on_unit: Callable[[Unit, float, int], None] | None = None,
) -> int:
    """Do what is not done, until it is all done or the budget is spent; the unit in work is always finished.

    Args:
        on_unit: called with each unit done, its seconds and how many are left.

    Returns:
        How many units are left.
    """
    cells, began = serving.work.cells, time.monotonic()
    while left := pending(cells, methods, seeds):
        if budget_seconds is not None and time.monotonic() - began >= budget_seconds:
            break
        started = time.monotonic()
        _do(serving, left[0])
        if on_unit:
            on_unit(left[0], time.monotonic() - started, len(left) - 1)
    return len(pending(cells, methods, seeds))


def pending(cells: Cells, methods: Sequence[str], seeds: Sequence[int]) -> list[Unit]:
    """The units that are not done, in order."""
    return [unit for unit in units(cells, methods, seeds) if unit.cell(cells) is None]


def _do(serving: SystemServing, unit: Unit) -> None:
    if unit.action == TRAIN and isinstance(unit.system, Trained):
        ensure_trained(serving.work, unit.system)
    elif unit.action == VALIDATE and isinstance(unit.system, Trained):
        serving.note_validation(unit.system)
    elif unit.action == TEXT:
        note_text(serving.work, unit.system)
    else:
        serving.note_scores(unit.system, unit.task)


def seconds_left(cells: Cells, methods: Sequence[str], seeds: Sequence[int]) -> tuple[float, int]:
    """(seconds of the units left whose kind was done before, number of units left whose kind was not)."""
    known: dict[tuple[str, ...], list[float]] = {}
    for unit in units(cells, methods, seeds):
        cell = unit.cell(cells)
        if cell is not None and "seconds" in cell:
            known.setdefault(unit.kind(cells), []).append(cell["seconds"])
    kinds = [unit.kind(cells) for unit in pending(cells, methods, seeds)]
    total = sum(statistics.median(known[kind]) for kind in kinds if kind in known)
    return total, sum(kind not in known for kind in kinds)
