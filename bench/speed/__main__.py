"""`make bench`: speed and memory of the engine and of training, as ratios measured in one run.

Prints a table and writes `bench/results/engine.json`, which holds each ratio under its key, its smallest and largest
pair under `spread`, and what it must reach under `bars`. Sections are independent: `--only train` measures those that
have a key beginning with `train` anew, and leaves the rest of the file as it is.
"""

import argparse

import torch

from bench.report import RESULTS
from bench.speed import generation, learning_speed, published, training
from bench.speed.engine_report import EngineReport
from bench.speed.ratios import Bench
from bench.speed.sections import Section, choose_sections, make_parser, measure_sections, prepare_quietly
from memgen.backbone.loading import load_backbone

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
    chosen = choose_sections(SECTIONS, arguments.only)
    results = arguments.out or (None if arguments.quick else RESULTS)
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
    prepare_quietly(arguments.threads)
    backbone = load_backbone(arguments.model, cache_dir=arguments.models, device=arguments.device)
    bench = Bench(backbone, quick=arguments.quick, results=results)
    report = EngineReport(backbone, results / "engine.json" if results is not None else None)
    measure_sections(chosen, bench, report)


def _arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, out="folder of the results")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0 is torch's choice")
    return parser.parse_args()


if __name__ == "__main__":
    main()
