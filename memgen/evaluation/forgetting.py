"""Continual-learning metrics over R, the matrix of scores (rows: versions in training order; columns: tasks).

`learned_at[j]` is the row of the version that first learned task j. Tasks not learned yet have no part in the metrics
of a row. After GEM (Lopez-Paz & Ranzato, arXiv 1706.08840) and Chaudhry et al. (arXiv 1801.10112).
"""

from collections.abc import Sequence

Matrix = Sequence[Sequence[float | None]]


def average_accuracy(r: Matrix, learned_at: Sequence[int]) -> float:
    """ACC: mean of the last row over the tasks learned. For the last row `[0.8, 0.6]`: 0.7."""
    last = len(r) - 1
    return _mean([_at(r, last, j) for j, row in enumerate(learned_at) if row <= last])


def backward_transfer(r: Matrix, learned_at: Sequence[int]) -> float | None:
    """BWT: mean change of the earlier tasks since they were learned; negative means forgetting.

    For rows `[[0.9, None], [0.7, 0.8]]`: 0.7 - 0.9 = -0.2. None before a second task was learned.
    """
    last = len(r) - 1
    changes = [_at(r, last, j) - _at(r, row, j) for j, row in enumerate(learned_at) if row < last]
    return _mean(changes) if changes else None


def forgetting(r: Matrix, learned_at: Sequence[int]) -> list[float | None]:
    """By task: its best earlier score since it was learned less its last; positive means forgetting.

    For rows `[[0.9, None], [0.7, 0.8]]`: `[0.2, None]`.
    """
    last = len(r) - 1
    dropped: list[float | None] = []
    for j, row in enumerate(learned_at):
        earlier = [_at(r, i, j) for i in range(row, last)]
        dropped.append(max(earlier) - _at(r, last, j) if earlier else None)
    return dropped


def forward_transfer(r: Matrix, base: Sequence[float], learned_at: Sequence[int]) -> float | None:
    """FWT: mean gain over the bare base on tasks just before they are learned, where that score is known.

    For rows `[[0.9, 0.3], [0.7, 0.8]]` and base `[0.1, 0.2]`: 0.3 - 0.2 = 0.1.
    """
    gains = []
    for j, row in enumerate(learned_at):
        before = r[row - 1][j] if row > 0 else None
        if before is not None:
            gains.append(before - base[j])
    return _mean(gains) if gains else None


def _at(r: Matrix, row: int, column: int) -> float:
    value = r[row][column]
    if value is None:
        raise ValueError(f"R[{row},{column}] is missing, but task {column} was learned by row {row}")
    return value


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
