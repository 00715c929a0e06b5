"""`python -m bench.router`: does each prompt reach its task's memory, and the rest the bare base?

The real base reads prompts of six tasks, of five foreign kinds, and of kinds in between (`bench.router.prompts`), each
once. Then, for each seed, every task's prompts are split anew: a router is fitted on some and routes the others
and all foreign ones. Shares are means over the seeds; their 95% Wilson intervals count each prompt once. Prints
tables and writes `bench/results/router.json`.
"""

import argparse
import json
import math
import platform
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from bench.report import RESULTS
from bench.router import prompts as router_prompts
from bench.router.prompts import RouterPrompt
from memgen.backbone.loading import Backbone, load_backbone, prepare_process
from memgen.backbone.prompt_cache import read_prompts
from memgen.backbone.states import prompt_states
from memgen.generation.intervals import wilson_interval
from memgen.routing.router import RoutedPrompt, Router
from workers.code_version import code_version

BASE = "bare base"
LEARNED_BEHIND = f"{router_prompts.BEHIND} that a fifth of the fitted prompts had"
BARS = {"accuracy": 0.95, "foreign_rejected": 0.9}


@dataclass
class Share:
    """How many of some prompts went where they should; one count for each seed."""

    items: int = 0
    right: list[int] = field(default_factory=list)
    went: Counter[str] = field(default_factory=Counter)
    """Where the prompts went, over all seeds."""
    closest: float = math.inf
    """Smallest distance of a prompt to a task, over that task's radius."""

    def add(self, routes: Sequence[RoutedPrompt], expected: Sequence[str]) -> None:
        """What one seed's router did with the prompts."""
        targets = [route.task or BASE for route in routes]
        self.items = len(routes)
        self.right.append(sum(target == wanted for target, wanted in zip(targets, expected, strict=True)))
        self.went.update(targets)
        self.closest = min(self.closest, *(min(route.fits.values()) for route in routes))

    def to_json(self) -> dict[str, Any]:
        right = statistics.mean(self.right)
        low, high = wilson_interval(right, self.items)
        return {
            "items": self.items,
            "share": round(right / self.items, 4),
            "interval": [round(low, 4), round(high, 4)],
            "by_seed": [round(count / self.items, 4) for count in self.right],
            "closest": round(self.closest, 3),
            "went": {target: round(count / len(self.right), 2) for target, count in self.went.most_common()},
        }


def pooled(shares: Iterable[Share]) -> Share:
    """Shares of several kinds of prompts as one."""
    whole = Share()
    for share in shares:
        whole.items += share.items
        whole.right = [a + b for a, b in zip(whole.right or [0] * len(share.right), share.right, strict=True)]
        whole.went += share.went
        whole.closest = min(whole.closest, share.closest)
    return whole


class States:
    """The base's states of prompts, each read once."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._known: dict[tuple[int, ...], Tensor] = {}

    def read(self, groups: Sequence[Sequence[RouterPrompt]]) -> None:
        new = dict.fromkeys(ids for group in groups for ids in map(self.ids, group) if ids not in self._known)
        prompts = sorted(new, key=len)
        for start in track(range(0, len(prompts), 32), "reading prompts", transient=True):
            batch = prompts[start : start + 32]
            self._known.update(zip(batch, prompt_states(self._backbone, batch), strict=True))

    def of(self, prompts: Sequence[RouterPrompt]) -> Tensor:
        return torch.stack([self._known[self.ids(prompt)] for prompt in prompts])

    def ids(self, prompt: RouterPrompt) -> tuple[int, ...]:
        return self._backbone.profile.prompt_ids(prompt.messages, prompt.tools)

    @property
    def count(self) -> int:
        return len(self._known)


@dataclass(frozen=True)
class Measured:
    """Shares that went right, by task or by kind of prompts."""

    tasks: dict[str, Share]
    foreign: dict[str, Share]
    similar: dict[str, Share]
    unusual: dict[str, Share]


def measure(backbone: Backbone, states: States, *, fit: int, held_out: int, seeds: int) -> Measured:
    """Fit a router on each split and route everything else with it."""
    prompts = {
        "served": router_prompts.served_tasks(fit + held_out),
        "foreign": router_prompts.foreign(),
        "similar": router_prompts.similar(),
        **router_prompts.unusual(),
    }
    states.read([group for groups in prompts.values() for group in groups.values()])
    read = {part: {name: states.of(group) for name, group in groups.items()} for part, groups in prompts.items()}
    served, foreign, similar = (read.pop(part) for part in ("served", "foreign", "similar"))
    shares = Measured(*(defaultdict(Share) for _ in range(4)))
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        mixed = {task: pool[torch.randperm(len(pool), generator=generator)] for task, pool in served.items()}
        fitted = {task: pool[:fit] for task, pool in mixed.items()}
        router = Router.fit(backbone, fitted)
        for task, pool in mixed.items():
            _route(shares.tasks[task], router, {task: pool[fit:]})
        for kind, pool in foreign.items():
            _route(shares.foreign[kind], router, {BASE: pool})
        for kind, pool in similar.items():
            _route(shares.similar[kind], router, {BASE: pool})
        for kind, by_task in read.items():
            _route(shares.unusual[kind], router, by_task)
        behind = {task: pool.chunk(2) for task, pool in read[router_prompts.BEHIND].items()}
        router = Router.fit(backbone, {task: torch.cat([fitted[task], half]) for task, (half, _) in behind.items()})
        _route(shares.unusual[LEARNED_BEHIND], router, {task: half for task, (_, half) in behind.items()})
    return shares


def _route(share: Share, router: Router, states: dict[str, Tensor]) -> None:
    """Route states that stand under the target they should go to."""
    expected = [target for target, pool in states.items() for _ in range(len(pool))]
    share.add(router.route(torch.cat(list(states.values()))), expected)


def latency(backbone: Backbone, states: States, fit: int) -> dict[str, float]:
    """Time of routing one prompt among six tasks, beside that of reading it, which serving does anyway."""
    served = router_prompts.served_tasks(fit)
    router = Router.fit(backbone, {task: states.of(prompts) for task, prompts in served.items()})
    prompt = served["tool-calls"][0]
    state, ids = states.of([prompt]), states.ids(prompt)
    return {
        "prompt_tokens": len(ids),
        "route_milliseconds": round(1000 * _median_seconds(lambda: router.route(state), 200), 3),
        "read_milliseconds": round(1000 * _median_seconds(lambda: read_prompts(backbone.decoder, [ids[:-1]]), 9), 1),
    }


def _median_seconds(work: Callable[[], object], times: int) -> float:
    def once() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    once()
    return statistics.median(once() for _ in range(times))


def document(backbone: Backbone, measured: Measured, arguments: argparse.Namespace) -> dict[str, Any]:
    """The JSON document of what was measured."""
    accuracy, rejected = pooled(measured.tasks.values()), pooled(measured.foreign.values())
    return {
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "model": backbone.name,
        "torch": torch.__version__,
        "code_version": code_version(),
        "fit_prompts_per_task": arguments.fit,
        "held_out_prompts_per_task": arguments.held_out,
        "seeds": arguments.seeds,
        "bars": BARS,
        "accuracy": accuracy.to_json(),
        "foreign_rejected": rejected.to_json(),
        "accuracy_by_task": {task: share.to_json() for task, share in measured.tasks.items()},
        "foreign_rejected_by_kind": {kind: share.to_json() for kind, share in measured.foreign.items()},
        "similar_rejected_by_kind": {kind: share.to_json() for kind, share in measured.similar.items()},
        "unusual_accepted_by_kind": {kind: share.to_json() for kind, share in measured.unusual.items()},
    }


def show(console: Console, report: dict[str, Any]) -> None:
    table = Table("prompts", "items", "right", "95%", "closest", "where they go")
    for title, part in (
        ("held out", report["accuracy_by_task"]),
        ("foreign", report["foreign_rejected_by_kind"]),
        ("similar", report["similar_rejected_by_kind"]),
        ("unusual", report["unusual_accepted_by_kind"]),
    ):
        for name, share in part.items():
            low, high = share["interval"]
            numbers = (f"{share['share']:.1%}", f"{low:.1%}-{high:.1%}", f"{share['closest']:.2f}")
            went = ", ".join(f"{target} {count:g}" for target, count in share["went"].items())
            table.add_row(f"{title}: {name}", str(share["items"]), *numbers, went)
        table.add_section()
    console.print(table)
    for name, bar in BARS.items():
        low, high = report[name]["interval"]
        verdict = "[green]pass[/]" if report[name]["share"] >= bar else "[red]fail[/]"
        console.print(f"{name} {report[name]['share']:.1%} ({low:.1%}-{high:.1%}), bar {bar:.0%}: {verdict}")
    console.print(report["latency"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--models", type=Path, default=Path.home() / ".memgen" / "models")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves it to torch")
    parser.add_argument("--fit", type=int, default=60, help="prompts a task that a router is fitted on")
    parser.add_argument("--held-out", type=int, default=100, help="prompts a task that it routes")
    parser.add_argument("--seeds", type=int, default=5, help="splits into fitted and held-out prompts")
    arguments = parser.parse_args()
    prepare_process(arguments.threads)
    backbone = load_backbone(arguments.model, cache_dir=arguments.models, device=arguments.device)
    states, started = States(backbone), time.perf_counter()
    measured = measure(backbone, states, fit=arguments.fit, held_out=arguments.held_out, seeds=arguments.seeds)
    report = document(backbone, measured, arguments)
    report["prompts_read"] = states.count
    report["latency"] = latency(backbone, states, arguments.fit)
    report["seconds"] = round(time.perf_counter() - started)
    show(Console(), report)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "router.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
