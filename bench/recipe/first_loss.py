"""`python -m bench.recipe.first_loss`: how much a fresh memory disturbs the base, by where its queries start.

Mean token loss, nats, of a few BFCL calls and synthetic tool calls; no training. Writes
`bench/results/first_loss.json`.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.report import RESULTS, machine_of
from bench.tool_calls import tool_calls
from memgen.backbone.loading import Backbone, load_backbone, prepare_process
from memgen.config import MemoryConfig
from memgen.memory.host import AdapterHost
from memgen.memory.weights import LINE_BREAK, Memory, start_as
from memgen.tasks.bfcl import single_calls
from memgen.training.examples import Example, build_examples
from memgen.training.forward import PrefixStore, supervised_nll
from memgen.training.losses import mean_by_example
from memgen.training.weaver.query_start import start_from_answers

RESULTS_FILE = RESULTS / "first_loss.json"
_EXAMPLES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--models", type=Path, default=Path.home() / ".memgen" / "models")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    prepare_process(0)
    backbone = load_backbone(arguments.model, cache_dir=arguments.models)
    found = measure(backbone, arguments.seeds)
    RESULTS_FILE.write_text(json.dumps({"machine": machine_of(backbone), "losses": found}, indent=1) + "\n")
    table = Table("queries", "insertions inside", *found["base"])
    for name, losses in found.items():
        table.add_row(*name.split(", "), *([""] if name == "base" else []), *map(str, losses.values()))
    Console().print(table)


def measure(backbone: Backbone, seeds: int) -> dict[str, dict[str, list[float]]]:
    """By where queries start and how many insertions follow the prompt's: losses by data and seed.

    Answers that queries start as are of other examples than those whose loss is measured.
    """
    host, whole = AdapterHost(backbone), _data(backbone)
    data = {name: examples[:_EXAMPLES] for name, examples in whole.items()}
    others = {name: examples[_EXAMPLES : 2 * _EXAMPLES] for name, examples in whole.items()}
    store = PrefixStore(backbone, 10**10, [[e.prompt_ids[:-1] for e in examples] for examples in data.values()])

    @torch.no_grad()
    def loss(memory: str | None, examples: Sequence[Example]) -> float:
        nll, rows = supervised_nll(host, memory, examples, store)
        return round(float(mean_by_example(nll, rows, len(examples)).mean()), 3)

    found = {"base": {name: [loss(None, examples)] for name, examples in data.items()}}
    for insertions in (0, 5):
        for start in ("answers", "words", "line breaks", "random tokens"):
            losses: dict[str, list[float]] = {name: [] for name in data}
            for name, seed in itertools.product(data, range(seeds)):
                memory = host.create("fresh", MemoryConfig(max_insertions=insertions), seed=seed)
                if start == "answers":
                    start_from_answers(memory, backbone, others[name], seed)
                elif start != "words":
                    start_queries(memory, backbone, start, seed)
                losses[name].append(loss("fresh", data[name]))
            found[f"{start}, {insertions}"] = losses
    return found


def _data(backbone: Backbone) -> dict[str, Sequence[Example]]:
    bfcl = build_examples(backbone.profile, shuffled_calls()[: 4 * _EXAMPLES], max_tokens=400).examples
    made = [{"messages": item.messages} for item in tool_calls(2 * _EXAMPLES, seed=0)]
    synthetic = build_examples(backbone.profile, made, max_tokens=400).examples
    return {"BFCL": bfcl, "tool calls": synthetic}


def shuffled_calls() -> list[dict[str, Any]]:
    """BFCL's single calls of three categories, shuffled by a fixed seed."""
    rows = [row for category in ("simple_python", "live_simple", "multiple") for row in single_calls(category)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(7)).tolist()
    return [rows[n] for n in order]


def start_queries(memory: Memory, backbone: Backbone, start: str, seed: int) -> None:
    """Let the queries of a fresh memory start as copies of `line breaks` or of `random tokens` instead."""
    generator = torch.Generator().manual_seed(seed)
    table: torch.Tensor = backbone.model.get_input_embeddings().weight  # type: ignore[assignment]  # it is no module
    for queries in (memory.prompt_queries, memory.inference_queries):
        if start == "random tokens":
            queries.start_from(table, generator)
        else:
            start_as(queries, backbone.profile.text_ids(LINE_BREAK), backbone, generator)


if __name__ == "__main__":
    main()
