"""`python -m bench.speed.products`: the arithmetic of one training step, counted instead of timed.

Where products of matrices are what a step waits for, as on a CPU, its time over another's tends to the quotient of
their products. That quotient is no machine's and has no noise; a measured ratio far from it comes from something else
(kernels, padding, memory). Counted by `torch.utils.flop_counter`, forward and backward.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from bench.plain_lora import PlainLora
from bench.report import RESULTS
from bench.speed.memories import TRAINING, plant
from bench.speed.published import plant_reference, train_literally
from bench.speed.ratios import Work
from bench.speed.training import WeaverStep, agent_batch
from memgen.backbone.loading import Backbone, load_backbone, prepare_process
from memgen.memory.host import AdapterHost
from memgen.training.examples import Example

RESULTS_FILE = RESULTS / "products.json"


def measure(backbone: Backbone, batch: Sequence[Example]) -> dict[str, Any]:
    """Millions of floating-point operations for each token of a batch, and their quotients."""
    host = AdapterHost(backbone)
    plant(host, "ours", TRAINING)
    reference = plant_reference(host, TRAINING)
    tokens = sum(example.tokens for example in batch)
    row = batch[len(batch) // 2]
    lora = PlainLora(backbone, learning_rate=1e-5)
    fresh, cached = (WeaverStep(host, "ours", batch, cached=cached) for cached in (False, True))
    cached()
    counts = {
        "reference": _operations(lambda: train_literally(reference, backbone, row)) / row.tokens,
        "lora": _operations(lambda: lora.step(batch)) / tokens,
        "ours": _operations(fresh) / tokens,
        "ours_cached": _operations(cached) / tokens,
    }
    return {
        "batch": {
            "rows": len(batch),
            "prompt_tokens": sum(len(example.prompt_ids) for example in batch),
            "answer_tokens": sum(len(example.target_ids) for example in batch),
        },
        "millions_a_token": {name: round(count / 1e6, 1) for name, count in counts.items()},
        "reference_over_ours": round(counts["reference"] / counts["ours"], 2),
        "reference_over_ours_cached": round(counts["reference"] / counts["ours_cached"], 2),
        "ours_over_lora": round(counts["ours"] / counts["lora"], 2),
        "ours_cached_over_lora": round(counts["ours_cached"] / counts["lora"], 2),
    }


def _operations(work: Work) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--models", type=Path, default=Path.home() / ".memgen" / "models")
    arguments = parser.parse_args()
    prepare_process(0)
    backbone = load_backbone(arguments.model, cache_dir=arguments.models)
    batch = agent_batch(backbone.profile, 8)
    latents = len(batch) * (TRAINING.latents + TRAINING.max_insertions * TRAINING.inference_latents)
    found = {"model": arguments.model, "latents": latents, **measure(backbone, batch)}
    RESULTS_FILE.write_text(json.dumps(found, indent=1) + "\n")
    table = Table("step", "MFLOP a token", title="forward and backward")
    for name, count in found["millions_a_token"].items():
        table.add_row(name, f"{count:,.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
