"""`make bench-serving`: how requests share the model, as ratios measured in one run with nothing else running.

Prints a table and writes `bench/results/serving.json`. Keys that end in `_threads2` are the same with two threads.
Sections are independent: `--only cold` measures those that have a key beginning with `cold`, and leaves the rest of the
file as it is.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from api.inference.requests import MemorySource
from bench.report import RESULTS
from bench.serving import local, over_http
from bench.serving.against_vllm import against_vllm
from bench.serving.constrained import constrained_over_free
from bench.serving.workload import make_versions, source_of
from bench.speed.engine_report import Bars, EngineReport
from bench.speed.sections import Section, choose_sections, make_parser, measure_sections, prepare_quietly
from memgen.backbone.loading import Backbone, load_backbone, named_dtype
from memgen.config import MemoryConfig
from registry.settings import Settings, load_settings

BARS = Bars(
    {
        "concurrent16_over_one": (">=", 5.0),
        "short_first_token_behind_long": ("<=", 1.5),
        "mixed8_over_single": (">=", 0.9),
        "cold_version_stall": ("<=", 2.0),
        "api_overhead_ms": ("<=", 5.0),
        "local_over_vllm_b1": (">=", 1.0),
        "local_over_vllm_b8": (">=", 1.0),
        "local_over_vllm_b16": (">=", 1.0),
        "vllm_memory_over_bare": (">=", 0.9),
        "constrained_over_free": ("<=", 1.1),
        "queue_full_failed": ("<=", 0.0),
    }
)
_VERSIONS = 8


@dataclass(frozen=True)
class ServingMaterial:
    """What sections work with."""

    backbone: Backbone
    settings: Settings
    versions: Sequence[MemorySource]
    quick: bool

    def packed(self) -> Backbone:
        """The base as the API has it."""
        return load_backbone(
            self.settings.base_model,
            cache_dir=self.settings.models_dir,
            dtype=named_dtype(self.settings.base_dtype),
            pack_weights=self.settings.pack_weights,
        )

    def pairs(self, wanted: int) -> int:
        return 1 if self.quick else wanted


SECTIONS: tuple[Section[ServingMaterial], ...] = (
    Section(
        "concurrency",
        lambda m: local.concurrency(m.backbone, m.settings, m.versions, m.pairs(3)),
        ("concurrent16_over_one", "mixed8_over_single"),
    ),
    Section(
        "first_token",
        lambda m: local.first_token(m.backbone, m.settings, m.pairs(15)),
        ("short_first_token_behind_long",),
    ),
    Section(
        "cold_version",
        lambda m: local.cold_version(m.backbone, m.settings, m.versions, m.pairs(7)),
        ("cold_version_stall", "cold_version_stall_with_weaving"),
    ),
    Section(
        "constrained",
        lambda m: constrained_over_free(m.packed(), m.pairs(5)),
        ("constrained_over_free", "constrained_over_free_b8"),
    ),
    Section(
        "against_vllm",
        lambda m: against_vllm(m.backbone, m.packed(), m.settings, m.pairs(5)),
        (
            "local_over_vllm_b1",
            "local_over_vllm_b8",
            "local_over_vllm_b16",
            "local_over_vllm_mixed16",
            "vllm_memory_over_bare",
            "vllm_interleaved_over_bare",
        ),
    ),
    Section(
        "over_http",
        lambda m: over_http.overhead_and_flood(m.settings, m.pairs(100), 20 if m.quick else 1000),
        ("api_overhead_ms", "queue_full_failed"),
    ),
)


def main() -> None:
    arguments = _arguments()
    chosen = choose_sections(SECTIONS, arguments.only)
    path = arguments.out or (None if arguments.quick else RESULTS / "serving.json")
    prepare_quietly(arguments.threads)
    backbone = load_backbone(arguments.model, cache_dir=arguments.models, dtype=named_dtype(arguments.dtype))
    report = EngineReport(backbone, path, BARS)
    ending = "" if arguments.threads == 1 else f"_threads{arguments.threads}"
    with tempfile.TemporaryDirectory(prefix="memgen-bench-") as folder:
        settings = load_settings(
            service_env=False,
            home=Path(folder),
            model_cache=arguments.models,
            base_model=arguments.model,
            base_dtype=arguments.dtype,
            torch_threads=arguments.threads,
        )
        versions = [source_of(s) for s in make_versions(backbone, Path(folder), [MemoryConfig()] * _VERSIONS)]
        material = ServingMaterial(backbone, settings, versions, arguments.quick)
        measure_sections(chosen, material, report, ending=ending)


def _arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, out="the file of the results")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument(
        "--dtype",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="of the base, on every side; auto is the service's own choice: bfloat16 where the CPU multiplies it",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
