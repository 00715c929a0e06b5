"""A `Task` over rows of a table: which rows are held out, in what order they come, and how a row becomes an item."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from memgen.tasks.split import is_held_out, question_digest
from memgen.tasks.task import TaskItem

DataRow = Mapping[str, Any]


class Rows(Protocol):
    """A list of rows, or a `datasets.Dataset`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Side:
    """The rows of one side of the split."""

    rows: Rows
    order: tuple[int, ...]
    """Indices into `rows`."""


@dataclass(frozen=True)
class RowTask:
    """A task over tables of rows. Items are made when they are read, so a large table costs nothing until then."""

    name: str
    max_new_tokens: int
    training: Side
    held_out: Side
    make_item: Callable[[DataRow], TaskItem]

    def training_items(self, count: int, *, seed: int = 0) -> Sequence[TaskItem]:
        order = list(self.training.order)
        random.Random(seed).shuffle(order)  # noqa: S311 - no secret
        return [self.make_item(self.training.rows[index]) for index in order[:count]]

    def held_out_items(self, count: int) -> Sequence[TaskItem]:
        return [self.make_item(self.held_out.rows[index]) for index in self.held_out.order[:count]]


def split_by_question(rows: Rows, questions: Sequence[str], *, one_in: int) -> tuple[Side, Side]:
    """(training, held out) of a table without a split: one question in `one_in` is held out."""
    order = _order(questions)
    held_out = {index for index in order if is_held_out(questions[index], one_in=one_in)}
    return (
        Side(rows, tuple(index for index in order if index not in held_out)),
        Side(rows, tuple(index for index in order if index in held_out)),
    )


def keep_split(
    training: Rows, training_questions: Sequence[str], held_out: Rows, held_out_questions: Sequence[str]
) -> tuple[Side, Side]:
    """(training, held out) of a table with a split of its own; a held-out question is never trained on."""
    tested = {question_digest(question) for question in held_out_questions}
    order = _order(training_questions)
    kept = tuple(index for index in order if question_digest(training_questions[index]) not in tested)
    return Side(training, kept), Side(held_out, _order(held_out_questions))


def _order(questions: Sequence[str]) -> tuple[int, ...]:
    """Indices by digest: tables are often sorted by subject, and the first held-out items should be a fair sample."""
    return tuple(sorted(range(len(questions)), key=lambda index: (question_digest(questions[index]), index)))
