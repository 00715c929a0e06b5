"""Sections of a benchmark: chosen by their keys, measured one by one, each written to the report as it ends."""

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from rich.console import Console
from transformers.utils import logging

from bench.speed.engine_report import EngineReport
from bench.speed.ratios import Findings, NotHere
from memgen.backbone.loading import prepare_process

MaterialT = TypeVar("MaterialT")


@dataclass(frozen=True)
class Section(Generic[MaterialT]):
    """What is measured together, and the keys of its ratios."""

    name: str
    measure: Callable[[MaterialT], Findings]
    keys: tuple[str, ...]


def make_parser(description: str | None, *, out: str) -> argparse.ArgumentParser:
    """The arguments that all benchmarks of sections take; `out` says what `--out` names."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="PREFIX", help="measure only sections with such keys"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test, not written unless --out is given")
    parser.add_argument("--out", type=Path, help=out)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--models", type=Path, default=Path.home() / ".memgen" / "models", help="cache of base models")
    return parser


def choose_sections(sections: Sequence[Section[MaterialT]], prefixes: Sequence[str]) -> list[Section[MaterialT]]:
    """Those with a key that begins with one of the prefixes. Raises SystemExit: there is none."""
    chosen = [s for s in sections if any(key.startswith(tuple(prefixes)) for key in s.keys)]
    if not chosen:
        raise SystemExit(f"no key begins with {prefixes}; keys: {[key for s in sections for key in s.keys]}")
    return chosen


def prepare_quietly(threads: int) -> None:
    """`prepare_process`, and no warnings of libraries among the figures."""
    # PEFT 0.21 still reads transformers' old name of the flag.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    prepare_process(threads)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers leaves it untyped


def measure_sections(
    sections: Sequence[Section[MaterialT]], material: MaterialT, report: EngineReport, *, ending: str = ""
) -> None:
    """Measure each, and show the table. `ending` is added to the names of sections and keys."""
    console = Console()
    for section in sections:
        console.print(f"{section.name} ...")
        started = time.perf_counter()
        try:
            findings = section.measure(material)
        except NotHere as error:
            console.print(f"not measured here: {error}")
            continue
        ratios = tuple(replace(ratio, key=ratio.key + ending) for ratio in findings.ratios)
        report.add(section.name + ending, replace(findings, ratios=ratios), time.perf_counter() - started)
    report.show(console)
