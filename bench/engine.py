"""`make bench`: speed and memory of the engine and the training step, as ratios measured in one run.

Each ratio times two ways of doing the same work in turn, A B A B, in one process, and takes the median of the pairs'
ratios: absolute times of a shared machine drift, their quotients hold. Prints a table and writes
`bench/results/engine.json`.
"""

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table

from memgen.backbone import Backbone, load_backbone, prepare_process
from memgen.config import MemoryConfig
from memgen.engine import GenerationRequest, generate
from memgen.sampling import Sampling
from memgen.tasks.bfcl import single_calls
from memgen.training.examples import Example, build_examples
from memgen.training.forward import PrefixStore, supervised_nll
from memgen.weaver import AdapterHost
from workers.code_version import code_version

RESULTS = Path(__file__).parent / "results"
PROMPT_TOKENS, NEW_TOKENS = 128, 64


@dataclass(frozen=True)
class Ratio:
    key: str
    what: str
    ratio: float
    low: float
    high: float


def measure(key: str, what: str, one: Callable[[], None], other: Callable[[], None], pairs: int) -> Ratio:
    """Time of `one` over `other`: the median of the pairs, with the smallest and largest."""
    one(), other()
    ratios = [_seconds(one) / _seconds(other) for _ in range(pairs)]
    return Ratio(key, what, statistics.median(ratios), min(ratios), max(ratios))


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _prompts(rows: int) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(rows)
    return [tuple(torch.randint(100, 40_000, (PROMPT_TOKENS,), generator=generator).tolist()) for _ in range(rows)]


def generation(host: AdapterHost, rows: int, pairs: int) -> Ratio:
    """Ours with one insertion a row over plain `transformers.generate`, the same number of new tokens."""
    model, prompts = host.backbone.model, _prompts(rows)
    ids = torch.tensor(prompts, device=host.backbone.device)
    plain = {"attention_mask": torch.ones_like(ids), "min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS}
    requests = [GenerationRequest(p, Sampling(NEW_TOKENS), "m0") for p in prompts]
    return measure(
        f"generate_over_plain_b{rows}",
        f"generation, one insertion, {NEW_TOKENS} new tokens, batch {rows}: time over transformers.generate",
        lambda: _generate_whole(host, requests),
        lambda: model.generate(ids, do_sample=False, **plain),
        pairs,
    )


def mixed_versions(host: AdapterHost, pairs: int) -> Ratio:
    """Throughput of eight versions in one batch of eight over that of one version."""
    prompts = _prompts(8)
    single = [GenerationRequest(p, Sampling(NEW_TOKENS), "m0") for p in prompts]
    mixed = [GenerationRequest(p, Sampling(NEW_TOKENS), f"m{n}") for n, p in enumerate(prompts)]
    return measure(
        "mixed_over_single",
        "8 versions mixed in one batch of 8: throughput over one version",
        lambda: _generate_whole(host, single),
        lambda: _generate_whole(host, mixed),
        pairs,
    )


def _generate_whole(host: AdapterHost, requests: list[GenerationRequest]) -> None:
    """Generate without ending early, so that both sides do the same work."""
    configured = host.backbone.model.generation_config
    kept, configured.eos_token_id = configured.eos_token_id, [-1]
    try:
        generate(host, requests)
    finally:
        configured.eos_token_id = kept


def training(host: AdapterHost, pairs: int, *, cached: bool) -> Ratio:
    """One optimizer step of weaver SFT over one of plain LoRA SFT of the base on the same batch."""
    data = build_examples(host.backbone.tokenizer, list(single_calls("simple_python"))[:8], max_tokens=1000)
    batch = list(data.examples)
    weaver = host.trainable_parameters("m0")
    for parameter in weaver:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(weaver, lr=1e-5)
    prefixes = PrefixStore(host.backbone, 10**10 if cached else 0, [[e.prompt_ids[:-1] for e in batch]])

    def ours() -> None:
        nll, _ = supervised_nll(host, "m0", batch, prefixes)
        nll.mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return measure(
        "train_over_lora_cached" if cached else "train_over_lora",
        f"SFT step, batch 8 x ~180 tokens, prefixes {'cached' if cached else 'encoded'}: time over plain LoRA SFT",
        ours,
        _lora_step(host.backbone, batch),
        pairs,
    )


def _lora_step(backbone: Backbone, batch: list[Example]) -> Callable[[], None]:
    """PEFT's LoRA of the same shape on a copy of the base; logits only where supervised, as a good trainer would."""
    model = get_peft_model(copy.deepcopy(backbone.model), LoraConfig(r=16, lora_alpha=32, target_modules=TARGETS))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    width = max(e.tokens for e in batch)
    ids, labels = torch.zeros(len(batch), width, dtype=torch.long), torch.full((len(batch), width), -1)
    mask = torch.zeros_like(ids)
    for row, e in enumerate(batch):
        ids[row, : e.tokens] = torch.tensor([*e.prompt_ids, *e.target_ids])
        mask[row, : e.tokens] = 1
        labels[row, len(e.prompt_ids) - 1 : e.tokens - 1] = torch.tensor(e.target_ids)
    ids, mask, labels = (part.to(backbone.device) for part in (ids, mask, labels))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)

    def step() -> None:
        hidden = model.base_model.model.model(input_ids=ids, attention_mask=mask).last_hidden_state
        logits = model.base_model.model.lm_head(hidden[labels >= 0])
        torch.nn.functional.cross_entropy(logits.float(), labels[labels >= 0]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


TARGETS = list(MemoryConfig().target_modules)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--models", type=Path, default=Path.home() / ".memgen" / "models")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    prepare_process(0)
    host = AdapterHost(load_backbone(arguments.model, cache_dir=arguments.models, device=arguments.device))
    for number in range(8):
        host.create(f"m{number}", MemoryConfig(), seed=number)
    pairs = arguments.pairs
    ratios = [
        generation(host, 1, pairs),
        generation(host, 8, pairs),
        mixed_versions(host, pairs),
        training(host, pairs, cached=False),
        training(host, pairs, cached=True),
    ]
    _report(arguments, ratios)


def _report(arguments: argparse.Namespace, ratios: list[Ratio]) -> None:
    table = Table("key", "what", "ratio", "min-max")
    for r in ratios:
        table.add_row(r.key, r.what, f"{r.ratio:.2f}", f"{r.low:.2f}-{r.high:.2f}")
    Console().print(table)
    gpu = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else None
    document = {
        "machine": gpu or f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "model": arguments.model,
        "torch": torch.__version__,
        "code_version": code_version(),
        "pairs": arguments.pairs,
        **{r.key: round(r.ratio, 3) for r in ratios},
        "spread": {r.key: [round(r.low, 3), round(r.high, 3)] for r in ratios},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "engine.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
