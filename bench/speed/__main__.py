"""`make bench`: speed and memory of the engine and of training, as ratios measured in one run.

Prints a table and writes `bench/results/engine.json`, which holds each ratio under its key, its smallest and largest
pair under `spread`, and what it must reach under `bars`. Sections are independent: `--only train` measures those that
have a key beginning with `train` anew, and leaves the rest of the file as it is.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from transformers.utils import logging

from bench.report import RESULTS
from bench.speed import generation, learning_speed, published, training
from bench.speed.engine_report import EngineReport
from bench.speed.ratios import Bench, Findings, NotHere
from memgen.backbone.loading import load_backbone, prepare_process


@dataclass(frozen=True)
class Section:
    """What is measured together, and the keys of its ratios."""

    name: str
    measure: Callable[[Bench], Findings]
    keys: tuple[str, ...]


SECTIONS = (
    Section("generate_over_plain", generation.over_plain, ("generate_over_plain_b1", "generate_over_plain_b8")),
    Section("mixed_over_single", generation.mixed_versions, ("mixed_over_single",)),
    Section("insertion_growth", generation.insertion_growth, ("insertion_growth",)),
    Section(
        "reference_over_engine",
        published.generation,
        ("reference_over_engine_256", "reference_over_engine_1024"),
    ),
    Section("train_over_reference", published.training, ("train_over_reference", "train_over_reference_cached")),
    Section(
        "train_over_lora",
        training.step_time,
        (
            "train_over_lora",
            "train_over_lora_cached",
            "train_over_lora_prompt_only",
            "train_over_lora_prompt_only_cached",
        ),
    ),
    Section("train_memory_over_lora", training.step_memory, ("train_memory_over_lora",)),
    Section(
        "learning_speed",
        learning_speed.learning_speed,
        ("steps_to_90_over_lora", "seconds_to_90_over_lora"),
    ),
    Section(
        "generate_packed_over_plain",
        generation.packed_over_plain,
        ("generate_over_plain_packed_b1", "generate_over_plain_packed_b8"),
    ),
)


def main() -> None:
    arguments = _arguments()
    chosen = [s for s in SECTIONS if any(key.startswith(tuple(arguments.only)) for key in s.keys)]
    if not chosen:
        raise SystemExit(f"no key begins with {arguments.only}; keys: {[key for s in SECTIONS for key in s.keys]}")
    results = arguments.out or (None if arguments.quick else RESULTS)
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
    # PEFT 0.21 still reads transformers' old name of the flag.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    prepare_process(arguments.threads)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    backbone = load_backbone(arguments.model, cache_dir=arguments.models, device=arguments.device)
    bench = Bench(backbone, quick=arguments.quick, results=results)
    report = EngineReport(backbone, results / "engine.json" if results is not None else None)
    console = Console()
    for section in chosen:
        console.print(f"{section.name} ...")
        started = time.perf_counter()
        try:
            findings = section.measure(bench)
        except NotHere as error:
            console.print(f"not measured here: {error}")
            continue
        report.add(section.name, findings, time.perf_counter() - started)
    report.show(console)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="PREFIX", help="measure only sections with such keys"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test, not written unless --out is given")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0 is torch's choice")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--models", type=Path, default=Path.home() / ".memgen" / "models", help="cache of base models")
    return parser.parse_args()


if __name__ == "__main__":
    main()
