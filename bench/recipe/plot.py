"""`python -m bench.recipe.plot`: the curves of `bench/results/recipe.json` as `docs/recipe.svg`."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.recipe.variants import RESULTS_FILE

PICTURE = Path(__file__).parents[2] / "docs" / "recipe.svg"
_SHOWN = ("LoRA SFT 2e-3", "prompt only", "line breaks", "defaults")
_SMOOTHING = 5
_TITLES = {"easy": "easy: synthetic tool calls", "hard": "hard: BFCL calls"}


def draw(found: dict[str, Any]) -> Figure:
    """One panel a task; thin lines are training losses of single batches, smoothed, dots are held-out losses."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for panel, (task, variants) in zip(panels, found.items(), strict=True):
        for number, name in enumerate(_SHOWN):
            if name in variants:
                _add(panel, name, variants[name], f"C{number}")
        panel.set_title(_TITLES.get(task, task), fontsize=10)
        panel.set_xlabel("optimizer step")
        panel.set_ylabel("loss, nats a token")
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=8)
    return figure


def _add(panel: Axes, name: str, result: dict[str, Any], colour: str) -> None:
    losses = result["losses"]
    smooth = [sum(part) / len(part) for n in range(len(losses)) if (part := losses[max(0, n - _SMOOTHING + 1) : n + 1])]
    panel.plot(range(1, len(losses) + 1), smooth, color=colour, linewidth=1.2, label=name)
    curve = result["curve"]
    panel.plot([p["step"] for p in curve], [p["held_out_loss"] for p in curve], "o", color=colour, markersize=5)


def main() -> None:
    mpl.rcParams["svg.hashsalt"] = "recipe"  # the same data give the same file
    draw(json.loads(RESULTS_FILE.read_text())).savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
