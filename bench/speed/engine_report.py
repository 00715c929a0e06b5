"""A results file and its table: ratios against their bars."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.report import machine_of
from bench.speed.ratios import Findings, Ratio
from memgen.backbone.loading import Backbone
from workers.code_version import code_version

BARS: dict[str, tuple[str, float]] = {
    "generate_over_plain_b1": ("<=", 1.15),
    "generate_over_plain_b8": ("<=", 1.25),
    "reference_over_engine_256": (">=", 5.0),
    "reference_over_engine_1024": (">=", 15.0),
    "insertion_growth": ("<=", 2.0),
    "mixed_over_single": (">=", 0.9),
    "train_over_reference": (">=", 15.0),
    "train_over_lora": ("<=", 1.0),
    "train_over_lora_cached": ("<=", 0.6),
    "train_memory_over_lora": ("<=", 1.0),
    "steps_to_90_over_lora": ("<=", 1.2),
    "seconds_to_90_over_lora": ("<=", 0.7),
}
MOONSHOTS: dict[str, tuple[str, float]] = {
    "generate_over_plain_b1": ("<", 0.7),
    "generate_over_plain_b8": ("<", 0.7),
    "generate_over_plain_packed_b1": ("<", 0.7),
    "generate_over_plain_packed_b8": ("<", 0.7),
}


@dataclass(frozen=True)
class Bars:
    """What ratios must reach, by key: a sign and a limit."""

    required: Mapping[str, tuple[str, float]]
    moonshots: Mapping[str, tuple[str, float]] = field(default_factory=dict)


ENGINE = Bars(BARS, MOONSHOTS)


class EngineReport:
    """Collects sections and writes the file after each, so that a killed run keeps what it has.

    Each section says where it was measured: ratios of several machines may stand in one file.
    """

    def __init__(self, backbone: Backbone, path: Path | None, bars: Bars = ENGINE) -> None:
        """Goes on from the file at `path` if that is of this model; None writes nothing."""
        self._path, self._bars = path, bars
        self._where = _where(backbone)
        self._document: dict[str, Any] = {"model": backbone.name}
        self._table = Table(title=f"{backbone.name}, {machine_of(backbone)}")
        for name in ("key", "what", "ratio", "min-max", "bar", ""):
            self._table.add_column(name, no_wrap=name != "what")
        kept = json.loads(path.read_text()) if path is not None and path.is_file() else {}
        if kept.get("model") == backbone.name:
            self._document = kept
        self._document["bars"] = {key: list(bar) for key, bar in bars.required.items()}
        self._document["moonshots"] = {key: list(bar) for key, bar in bars.moonshots.items()}

    def add(self, section: str, findings: Findings, seconds: float) -> None:
        """Note a section and write the file."""
        for ratio in findings.ratios:
            self._document[ratio.key] = _rounded(ratio.value)
            self._nested("spread")[ratio.key] = [_rounded(min(ratio.values)), _rounded(max(ratio.values))]
            self._nested("pairs")[ratio.key] = len(ratio.values)
            self._table.add_row(*_row(ratio, self._bars))
        self._nested("method")[section] = findings.method
        self._nested("sections")[section] = {
            **self._where,
            "seconds": round(seconds),
            "load_average": round(os.getloadavg()[0], 2),
        }
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(_ordered(self._document), indent=2) + "\n")

    def show(self, console: Console) -> None:
        console.print(self._table)
        if self._path is not None:
            console.print(f"written to {self._path}")

    def _nested(self, name: str) -> dict[str, Any]:
        inner: dict[str, Any] = self._document.setdefault(name, {})
        return inner


def meets(value: float, bar: tuple[str, float]) -> bool:
    """Whether a ratio clears its bar: `meets(1.1, ("<=", 1.15))` is true."""
    sign, limit = bar
    return {"<=": value <= limit, ">=": value >= limit, "<": value < limit}[sign]


def _row(ratio: Ratio, bars: Bars) -> Sequence[str]:
    bar, moonshot = bars.required.get(ratio.key), bars.moonshots.get(ratio.key)
    mark = ""
    if bar is not None:
        mark = "[green]pass[/]" if meets(ratio.value, bar) else "[red]fail[/]"
    if moonshot is not None and meets(ratio.value, moonshot):
        mark = "[green]stretch goal[/]"
    spread = f"{min(ratio.values):.2f}-{max(ratio.values):.2f}"
    return (ratio.key, ratio.what, f"{ratio.value:.2f}", spread, f"{bar[0]} {bar[1]:g}" if bar else "", mark)


def _ordered(document: dict[str, Any]) -> dict[str, Any]:
    """Plain values first: the model, then the ratios."""
    return dict(sorted(document.items(), key=lambda item: isinstance(item[1], dict)))


def _where(backbone: Backbone) -> dict[str, Any]:
    return {
        "machine": machine_of(backbone),
        "dtype": str(backbone.model.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "code_version": code_version(),
    }


def _rounded(value: float) -> float | None:
    """JSON has no infinity."""
    return round(value, 3) if math.isfinite(value) else None
