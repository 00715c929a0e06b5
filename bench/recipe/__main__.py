"""`python -m bench.recipe`: what makes a memory learn fast on a small base.

One change at a time, on an easy task (synthetic tool calls: a format and slots to copy) and on a hard
one (BFCL: real function calls), against LoRA SFT of the base in the same steps. Each variant's curve goes to
`bench/results/recipe.json` as soon as it is done, and a variant already there is not run again.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.plain_lora import PlainLora
from bench.recipe.first_loss import shuffled_calls, start_queries
from bench.recipe.variants import RESULTS_FILE, VARIANTS, Variant
from bench.speed.learning_speed import Answering, answer_with
from bench.tool_calls import tool_calls
from memgen.backbone.loading import Backbone, load_backbone, prepare_process
from memgen.config import MemoryConfig, TrainingConfig
from memgen.evaluation.accuracy import item_of
from memgen.generation.engine import generate_all
from memgen.generation.requests import GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.tasks.graders import Reference, make_grader
from memgen.text.answers import parse_answer
from memgen.training.batches import batch_of_step
from memgen.training.examples import Example, ExampleSet, build_examples
from memgen.training.forward import PrefixStore, supervised_nll
from memgen.training.losses import mean_by_example
from memgen.training.run_control import RunControl
from memgen.training.weaver.sft import train_weaver


@dataclass(frozen=True)
class RecipeTask:
    """A task with its examples, its held-out prompts and how their answers are graded."""

    name: str
    examples: tuple[Example, ...]
    held_out: tuple[Example, ...]
    """For the loss."""
    prompts: list[tuple[int, ...]]
    grade: Callable[[int, str], float]
    new_tokens: int
    steps: int
    every: int


def easy_task(backbone: Backbone, steps: int) -> RecipeTask:
    """Synthetic tool calls: a format, and slots to copy."""
    held_out = tool_calls(50, seed=1_000_000)
    items = tool_calls(640, seed=0, without=frozenset(item.request for item in held_out))
    prompts = [backbone.profile.prompt_ids(i.messages[:1]) for i in held_out]
    return RecipeTask(
        "easy",
        _examples(backbone, [{"messages": item.messages} for item in items]),
        _examples(backbone, [{"messages": item.messages} for item in held_out]),
        prompts,
        lambda n, text: float(text.strip() == held_out[n].call),
        40,
        steps,
        20,
    )


def hard_task(backbone: Backbone, steps: int) -> RecipeTask:
    """BFCL's single calls; 120 held out."""
    fitting = [row for row in shuffled_calls() if len(_examples(backbone, [row])) == 1]
    held_out, training = fitting[:120], fitting[120:]
    grader = make_grader({"kind": "function_call"})
    items = [item_of(row["messages"], row["tools"], row["metadata"]) for row in held_out]

    def grade(number: int, text: str) -> float:
        item = items[number]
        return grader(parse_answer(text), Reference(item.reference.message, item.reference.metadata))

    prompts = [backbone.profile.prompt_ids(item.messages, item.tools) for item in items]
    return RecipeTask(
        "hard", _examples(backbone, training), _examples(backbone, held_out), prompts, grade, 90, steps, 20
    )


def _examples(backbone: Backbone, trajectories: Sequence[dict[str, Any]]) -> tuple[Example, ...]:
    return build_examples(backbone.profile, trajectories, max_tokens=400).examples


def run(backbone: Backbone, task: RecipeTask, variant: Variant) -> dict[str, Any]:
    """Train one variant; its curve of training loss, held-out loss and accuracy. Seconds are of training alone."""
    config = TrainingConfig(**{"steps": task.steps, **variant.training})
    curve: list[dict[str, float]] = []
    losses: list[float] = []
    norms: list[float] = []
    clock = {"seconds": 0.0, "since": time.perf_counter()}

    def look(step: int, held_out_loss: Callable[[], float], answering: Answering) -> None:
        clock["seconds"] += time.perf_counter() - clock["since"]
        if step % task.every == 0 or step == config.steps:
            point = {"step": step, "seconds": round(clock["seconds"], 1), "held_out_loss": round(held_out_loss(), 4)}
            if task.name == "easy" or step == config.steps:
                texts = answering(task.prompts)
                point["accuracy"] = sum(task.grade(n, text) for n, text in enumerate(texts)) / len(texts)
            curve.append(point)
        clock["since"] = time.perf_counter()

    if variant.lora_rate is not None:
        lora = PlainLora(backbone, learning_rate=variant.lora_rate, target_modules=variant.lora_modules)
        _run_lora(lora, backbone, task, config, look, losses)
    else:
        _run_memory(backbone, task, variant, config, look, losses, norms)
    return {
        "steps": config.steps,
        "curve": curve,
        "losses": [round(loss, 4) for loss in losses],
        "largest_gradient_norm": round(max(norms), 3) if norms else None,
    }


Look = Callable[[int, Callable[[], float], Answering], None]


def _run_memory(
    backbone: Backbone,
    task: RecipeTask,
    variant: Variant,
    config: TrainingConfig,
    look: Look,
    losses: list[float],
    norms: list[float],
) -> None:
    host = AdapterHost(backbone)
    memory = host.create("memory", MemoryConfig(**variant.memory))
    if variant.start is not None and memory.config.form == "cache":
        start_queries(memory, backbone, variant.start, seed=0)
    store = PrefixStore(backbone, 10**9, [[e.prompt_ids[:-1] for e in task.held_out]])

    def held_out_loss() -> float:
        return _held_out_loss(lambda batch: supervised_nll(host, "memory", batch, store), task)

    def answering(prompts: list[tuple[int, ...]]) -> list[str]:
        requests = [GenerationRequest(prompt, Sampling(task.new_tokens), "memory") for prompt in prompts]
        return [answer.text for answer in generate_all(host, requests, batch_size=50)]

    def on_step(report: Any) -> None:
        losses.append(report.loss)
        norms.append(report.grad_norm)
        look(report.step, held_out_loss, answering)

    train_weaver(host, "memory", ExampleSet(task.examples, 0, 0), config, control=RunControl(on_step=on_step))


def _run_lora(
    lora: PlainLora, backbone: Backbone, task: RecipeTask, config: TrainingConfig, look: Look, losses: list[float]
) -> None:
    for step in range(config.steps):
        losses.append(lora.step(batch_of_step(task.examples, config, step), schedule=config))
        look(
            step + 1,
            lambda: _held_out_loss(lambda batch: (lora.loss(batch)[None], None), task),
            lambda prompts: [
                text
                for start in range(0, len(prompts), 25)
                for text in answer_with(lora, backbone, prompts[start : start + 25], task.new_tokens)
            ],
        )


@torch.no_grad()
def _held_out_loss(
    nll_of: Callable[[Sequence[Example]], tuple[torch.Tensor, torch.Tensor | None]], task: RecipeTask
) -> float:
    total, size = 0.0, 20
    for start in range(0, len(task.held_out), size):
        batch = task.held_out[start : start + size]
        nll, rows = nll_of(batch)
        mean = nll if rows is None else mean_by_example(nll, rows, len(batch))
        total += float(mean.mean()) * len(batch)
    return total / len(task.held_out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--models", type=Path, default=Path.home() / ".memgen" / "models")
    parser.add_argument("--task", choices=("easy", "hard"), default="easy")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 is its own choice")
    arguments = parser.parse_args()
    prepare_process(arguments.threads)
    backbone = load_backbone(arguments.model, cache_dir=arguments.models)
    make = {"easy": (easy_task, 40), "hard": (hard_task, 60)}[arguments.task]
    task = make[0](backbone, arguments.steps or make[1])
    for name in arguments.variants:
        if name not in _done().get(task.name, {}):
            result = run(backbone, task, VARIANTS[name])
            found = _done()  # anew, for another process may have added to it
            found.setdefault(task.name, {})[name] = result
            RESULTS_FILE.parent.mkdir(exist_ok=True)
            RESULTS_FILE.write_text(json.dumps(found, indent=1) + "\n")
            Console().print(f"{task.name} {name}: {result['curve'][-1]}")
    _report(task.name, _done().get(task.name, {}))


def _done() -> dict[str, Any]:
    """Results at hand, by task and variant."""
    return dict(json.loads(RESULTS_FILE.read_text())) if RESULTS_FILE.is_file() else {}


def _report(task: str, done: dict[str, Any]) -> None:
    table = Table("variant", "first loss", "held-out loss", "accuracy", "step of 90%", "seconds", title=task)
    for name, result in done.items():
        last = result["curve"][-1]
        reached = next((p["step"] for p in result["curve"] if p.get("accuracy", 0) >= 0.9), math.nan)
        table.add_row(
            name,
            f"{result['losses'][0]:.2f}",
            f"{last['held_out_loss']:.3f}",
            f"{last.get('accuracy', math.nan):.1%}",
            f"{reached:.0f}",
            f"{last['seconds'] or math.nan:.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
