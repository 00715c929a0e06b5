"""`python -m bench.trigger`: does a trained trigger weave where memory helps, and not where it hurts?

For each seed a memory learns tool calls, woven at the prompt's end and at sentence ends. Triggers of both kinds are
trained over it by GRPO, with the penalty on needless insertions and without, on tool calls of two of four types and on
foreign questions, which memory spoils (with `--harmless`: to which any answer is right). Then each answers held-out
items of these tasks and of tasks it never saw, greedily, against the same memory woven always and never. Each run
goes to `bench/results/trigger.json` as soon as it is done, and one already there is not run again. A seed's memory is
kept in a folder, so that all its triggers stand over the same one.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.report import RESULTS, machine_of
from bench.trigger.tasks import NEW_TOKENS, BenchTask, Sizes, make_tasks, weaver_conversations
from memgen.artifacts.artifact import load_artifact, save_artifact
from memgen.backbone.loading import Backbone, load_backbone, prepare_process
from memgen.config import MemoryConfig, TrainingConfig, TriggerConfig
from memgen.evaluation.episodes import score_task
from memgen.generation.intervals import wilson_interval
from memgen.generation.invocations import invocation_rate
from memgen.memory.host import AdapterHost
from memgen.training.examples import build_examples
from memgen.training.run_control import RunControl
from memgen.training.trigger.grpo import train_trigger
from memgen.training.trigger.report import TriggerStep
from memgen.training.weaver.sft import train_weaver

RESULTS_FILE = RESULTS / "trigger.json"
WOVEN = "woven"
"""Name of the trained memory under the trigger `always`."""
FIXED = ("never", "always")
_HEAD, _LORA = "head", "lora"
_SHAPE = ("sizes", "memory", "weaver", "trigger")
"""Fields of a plan that must agree for runs to stand in one file."""


@dataclass(frozen=True)
class TriggerPlan:
    """What is trained and measured: seeds, kinds of triggers, rates and sizes."""

    seeds: tuple[int, ...] = (0, 1, 2)
    kinds: tuple[str, ...] = (_HEAD, _LORA)
    lora_rates: tuple[float, ...] = (TriggerConfig.learning_rate,)
    """Learning rates of the kind `lora`."""
    penalties: tuple[float, ...] = (0.0, 0.1)
    harmless: bool = False
    """Whether memory is of no consequence where it does not help, instead of harmful."""
    sizes: Sizes = field(default_factory=Sizes)
    memory: MemoryConfig = field(default_factory=lambda: MemoryConfig(max_insertions=2))
    weaver: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=80))
    trigger: TriggerConfig = field(default_factory=lambda: TriggerConfig(max_new_tokens=NEW_TOKENS))


QUICK = TriggerPlan(
    seeds=(0,),
    penalties=(0.1,),
    sizes=Sizes(weaver=8, training=2, held_out=2),
    memory=MemoryConfig(max_insertions=2, latents=2, inference_latents=2),
    weaver=TrainingConfig(steps=2, batch_size=2),
    trigger=TriggerConfig(steps=2, items_per_step=2, group_size=2, max_new_tokens=NEW_TOKENS),
)


def measure(backbone: Backbone, plan: TriggerPlan, memories: Path, results: Path, console: Console) -> dict[str, Any]:
    """All runs that are not in `results` yet; the whole document."""
    document: dict[str, Any] = json.loads(results.read_text()) if results.is_file() else {}
    method = _method(backbone, plan)
    if document.setdefault("method", method) != method:
        raise SystemExit(f"{results} holds runs of another plan, model or precision; move it away to start over")
    runs, places = document.setdefault("runs", {}), document.setdefault("where", [])
    where = {"machine": machine_of(backbone), "threads": torch.get_num_threads(), "torch": torch.__version__}
    missing = [run for run in _names(plan) if run[0] not in runs]
    tasks = make_tasks(AdapterHost(backbone), plan.sizes, harmless=plan.harmless) if missing else []
    for name, seed, kind, config in missing:
        host = _host(backbone, plan, memories / f"seed-{seed}", seed)
        runs[name] = _run(host, plan, tasks, seed, kind, config, console)
        places.extend([where] if where not in places else [])
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_text(json.dumps(document, indent=1) + "\n")
        console.print(_table(name, runs[name]))
    return document


def _names(plan: TriggerPlan) -> Iterator[tuple[str, int, str, TriggerConfig]]:
    """(name, seed, kind of trigger, how it is trained) of each run."""
    for seed in plan.seeds:
        of = f"seed {seed}{', harmless' if plan.harmless else ''}"
        for kind in FIXED:
            yield f"{of}, {kind}", seed, kind, plan.trigger
        for kind in plan.kinds:
            for rate in plan.lora_rates if kind == _LORA else (plan.trigger.learning_rate,):
                named = f"{kind} at {rate:g}" if kind == _LORA else kind
                for penalty in plan.penalties:
                    config = replace(plan.trigger, penalty=penalty, seed=seed, learning_rate=rate)
                    yield f"{of}, {named}, penalty {penalty:g}", seed, kind, config


def _host(backbone: Backbone, plan: TriggerPlan, folder: Path, seed: int) -> AdapterHost:
    """A host with the seed's memory, trained now if that was not done before."""
    host = AdapterHost(backbone)
    if (folder / "manifest.json").is_file():
        load_artifact(host, WOVEN, folder)
        return host
    host.create(WOVEN, plan.memory, seed=seed)
    data = build_examples(backbone.profile, weaver_conversations(plan.sizes, seed), max_tokens=512)
    report = train_weaver(host, WOVEN, data, replace(plan.weaver, seed=seed))
    save_artifact(host, WOVEN, folder, report)
    return host


def _run(
    host: AdapterHost,
    plan: TriggerPlan,
    tasks: Sequence[BenchTask],
    seed: int,
    kind: str,
    config: TriggerConfig,
    console: Console,
) -> dict[str, Any]:
    started = time.perf_counter()
    if kind in FIXED:
        return {"tasks": _scores(host, WOVEN if kind == "always" else None, tasks)}
    trained = host.create(kind, replace(plan.memory, trigger=kind), seed=seed)
    with torch.no_grad():
        pairs = zip(trained.weaver_parameters(), host.memories[WOVEN].weaver_parameters(), strict=True)
        for ours, theirs in pairs:
            ours.copy_(theirs)
    steps: list[TriggerStep] = []
    items = {task.name: task.training for task in tasks if task.seen}

    def on_step(step: TriggerStep) -> None:
        steps.append(step)
        console.print(
            f"step {step.step}/{step.steps}: reward {step.reward:.3f}, invoked {step.invoked:.0%}, "
            f"{step.groups_skipped} of {step.groups} groups skipped, {step.seconds_left:.0f} s left"
        )

    report = train_trigger(host, kind, items, config, control=RunControl(on_step=on_step))
    return {
        "tasks": _scores(host, kind, tasks),
        "flags": list(report.flags),
        "groups_skipped": report.groups_skipped,
        "groups": report.groups,
        "training_seconds": round(report.seconds, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "curve": [
            {"step": step.step, "reward": step.reward, "invoked": step.invoked, "entropy": step.entropy}
            for step in steps
        ],
    }


def _scores(host: AdapterHost, memory: str | None, tasks: Sequence[BenchTask]) -> dict[str, Any]:
    found = {}
    for task in tasks:
        score = score_task(host, memory, task.held_out, max_new_tokens=NEW_TOKENS)
        rewards = [item.score for item in score.suite.items]
        decisions = [[d for turn in e.turns for d in turn.generation.decisions] for e in score.episodes]
        rate = invocation_rate(decisions)
        found[task.name] = {
            "seen": task.seen,
            "items": len(rewards),
            "reward": sum(rewards) / len(rewards),
            # Wilson's for a share; wider than it need be where rewards lie between 0 and 1.
            "reward_interval": wilson_interval(sum(rewards), len(rewards)),
            "rewards": rewards,
            **{name: value for name, value in asdict(rate).items() if name != "answers"},
            "invoked_at_prompt_end": sum(answer[0].invoked for answer in decisions if answer) / len(decisions),
            "insertions_per_answer": rate.insertions_per_answer,
        }
    return found


def _method(backbone: Backbone, plan: TriggerPlan) -> dict[str, Any]:
    parts = asdict(plan)
    method = {
        "model": backbone.name,
        "dtype": str(backbone.model.dtype).removeprefix("torch."),
        **{name: parts[name] for name in _SHAPE},
        "how": "greedy tokens and decisions on held-out items; 95% Wilson intervals over items of one seed",
    }
    for name in ("penalty", "seed", "learning_rate"):
        del method["trigger"][name]  # the runs' names say them
    plain: dict[str, Any] = json.loads(json.dumps(method))
    return plain


def _table(name: str, run: dict[str, Any]) -> Table:
    table = Table("task", "reward", "95%", "invoked", "95%", "insertions/answer", title=name)
    for task, found in run["tasks"].items():
        rate = found["rate"]
        table.add_row(
            task if found["seen"] else f"{task} (unseen)",
            f"{found['reward']:.3f}",
            "{:.2f}-{:.2f}".format(*found["reward_interval"]),
            "-" if rate is None else f"{rate:.1%}",
            "{:.2f}-{:.2f}".format(*found["interval"]),
            f"{found['insertions_per_answer']:.2f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--models", type=Path, default=Path.home() / ".memgen" / "models")
    parser.add_argument("--memories", type=Path, default=Path.home() / ".memgen" / "bench" / "trigger")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(TriggerPlan.seeds))
    parser.add_argument("--kinds", nargs="*", choices=TriggerPlan.kinds, default=list(TriggerPlan.kinds))
    parser.add_argument("--lora-rates", type=float, nargs="*", default=list(TriggerPlan.lora_rates))
    parser.add_argument("--harmless", action="store_true", help="memory changes nothing where it does not help")
    parser.add_argument("--quick", action="store_true", help="a smoke test; its numbers mean nothing, nothing is kept")
    arguments = parser.parse_args()
    prepare_process(arguments.threads)
    backbone, console = load_backbone(arguments.model, cache_dir=arguments.models), Console()
    if arguments.quick:
        with tempfile.TemporaryDirectory(prefix="memgen-bench-") as folder:
            measure(backbone, QUICK, Path(folder) / "memories", Path(folder) / "trigger.json", console)
        return
    plan = replace(
        TriggerPlan(),
        seeds=tuple(arguments.seeds),
        kinds=tuple(arguments.kinds),
        lora_rates=tuple(arguments.lora_rates),
        harmless=arguments.harmless,
    )
    measure(backbone, plan, arguments.memories, RESULTS_FILE, console)


if __name__ == "__main__":
    main()
