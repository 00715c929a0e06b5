"""The figures of the pages of results, as SVG that comes out equal for equal numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from bench.learning.systems import is_ours

OF_THE_PAGE = ("acc",)
OF_THE_LAB_BOOK = ("cost", "matrices", "first_task")
_OURS, _THEIRS = "#1f6f8b", "#b0a18f"


def draw(document: dict[str, Any], folder: Path, names: Sequence[str]) -> list[str]:
    """Write the figures of these names into `folder`; returns their files' names."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "learning", "svg.fonttype": "none", "font.size": 9}):
        for name in names:
            _FIGURES[name](document, folder / f"{name}.svg")
    return [f"{name}.svg" for name in names]


def _accuracy(document: dict[str, Any], path: Path) -> None:
    """ACC by method, with its interval over items and a dot for each seed."""
    methods = sorted(document["methods"].items(), key=lambda pair: pair[1]["acc"])
    figure, axes = plt.subplots(figsize=(7, 0.35 * len(methods) + 1))
    for row, (name, found) in enumerate(methods):
        low, high = found["acc_interval_over_items"]
        axes.barh(row, found["acc"], color=_OURS if is_ours(name) else _THEIRS)
        axes.plot([low, high], [row, row], color="black", linewidth=1)
        axes.scatter(found["acc_by_seed"], [row] * len(found["acc_by_seed"]), color="black", s=8, zorder=3)
    axes.set_yticks(range(len(methods)), [name for name, _ in methods])
    axes.set_xlabel("ACC: mean score over the tasks at the end")
    axes.set_xlim(left=0)
    _save(figure, path)


def _matrices(document: dict[str, Any], path: Path) -> None:
    """R of each method that learns from stage to stage."""
    methods = [(name, found) for name, found in document["methods"].items() if name not in ("base", "majority")]
    columns = min(4, max(1, len(methods)))
    rows = max(1, -(-len(methods) // columns))
    figure, grid = plt.subplots(rows, columns, figsize=(2.4 * columns, 2.5 * rows), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (name, found) in zip(grid.flat, methods, strict=False):
        _matrix(axes, name, found["matrix"], document["tasks"])
    _save(figure, path)


def _matrix(axes: Any, name: str, matrix: Sequence[Sequence[float | None]], labels: Sequence[str]) -> None:
    shown = [[float("nan") if value is None else value for value in row] for row in matrix]
    axes.set_axis_on()
    axes.imshow(shown, vmin=0, vmax=1, cmap="Blues")
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            if value is not None:
                color = "white" if value > 0.5 else "black"
                axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=color)
    axes.set_title(name)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), [f"after {label}" for label in labels])


def _first_task(document: dict[str, Any], path: Path) -> None:
    """What becomes of the first task while the others are learned."""
    figure, axes = plt.subplots(figsize=(6, 3.2))
    for name, found in document["methods"].items():
        values = [row[0] for row in found["matrix"]]
        if name in ("base", "majority") or None in values:
            continue
        axes.plot(range(len(values)), values, marker="o", label=name, linestyle="-" if is_ours(name) else "--")
    axes.set_xticks(range(len(document["tasks"])), [f"after {label}" for label in document["tasks"]])
    axes.set_ylabel(f"score on {document['tasks'][0]}")
    axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)
    _save(figure, path)


def _cost(document: dict[str, Any], path: Path) -> None:
    """ACC over the seconds of training, of the methods that train, with intervals over items."""
    figure, axes = plt.subplots(figsize=(6, 3.6))
    for name, found in document["methods"].items():
        if not found["train_seconds"]:
            continue
        low, high = found["acc_interval_over_items"]
        color = _OURS if is_ours(name) else _THEIRS
        axes.plot([found["train_seconds"]] * 2, [low, high], color=color, linewidth=1)
        axes.scatter(found["train_seconds"], found["acc"], color=color)
        axes.annotate(name, (found["train_seconds"], found["acc"]), xytext=(5, 3), textcoords="offset points")
    axes.set_xlabel("seconds of training, all tasks")
    axes.set_ylabel("ACC at the end")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


_FIGURES = {"acc": _accuracy, "cost": _cost, "matrices": _matrices, "first_task": _first_task}
