"""How fast a memory learns a task, in steps and in seconds of training, against LoRA SFT of the base.

Both learn the same tool calls in the same order (`bench.tool_calls`) and answer every few steps the same
held-out items. LoRA SFT runs at its best learning rate of three, found on the first seed; the memory at the defaults of
`MemoryConfig` and `TrainingConfig`, which are also both sides' batch, warmup and decay. Asking is not counted.
"""

import contextlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from bench.plain_lora import PlainLora
from bench.speed.ratios import Bench, Findings, Ratio
from bench.tool_calls import ToolCall, tool_calls
from memgen.backbone.loading import Backbone
from memgen.config import MemoryConfig, TrainingConfig
from memgen.errors import Cancelled
from memgen.generation.engine import generate_all
from memgen.generation.requests import GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.training.batches import batch_of_step
from memgen.training.examples import ExampleSet, build_examples
from memgen.training.optimizing import StepReport
from memgen.training.run_control import RunControl
from memgen.training.weaver.sft import train_weaver

GOAL = 0.9
LORA_RATES = (2e-3, 1e-3, 5e-4)
_HELD_OUT_SEED = 1_000_000
_CHUNK = 25
_NEW_TOKENS = 40

PromptIds = tuple[int, ...]
Answering = Callable[[list[PromptIds]], list[str]]


@dataclass(frozen=True)
class SpeedPlan:
    """How many examples, held-out items and steps there are."""

    seeds: tuple[int, ...] = (0, 1, 2)
    items: int = 100
    examples: int = 640
    """More than a run sees before it stops, so that nothing is learned by heart."""
    every: int = 3
    """Steps between two looks at the held-out items."""
    most_steps: int = 80


@dataclass(frozen=True)
class Point:
    """Accuracy on held-out items after some steps."""

    step: int
    seconds: float
    """Seconds of training so far."""
    accuracy: float
    items: int
    """Held-out items that were answered: all, or fewer where the goal was already out of reach."""


@dataclass(frozen=True)
class LearningRun:
    """One training of one side, with its curve."""

    method: str
    learning_rate: float
    seed: int
    curve: tuple[Point, ...]

    @property
    def goal(self) -> Point | None:
        """Where the goal was reached; None if it was not."""
        return next((point for point in self.curve if point.accuracy >= GOAL), None)

    @property
    def cost(self) -> tuple[int, float]:
        """Steps and seconds to the goal; those of the whole run, a lower bound, if it was not reached."""
        point = self.goal or self.curve[-1]
        return point.step, point.seconds


class _Exam:
    """The held-out items, and when the next look at them is due. Keeps the clock of training."""

    def __init__(self, backbone: Backbone, items: Sequence[ToolCall], plan: SpeedPlan) -> None:
        self._prompts = [backbone.profile.prompt_ids(item.messages[:1]) for item in items]
        self._calls = [item.call for item in items]
        self._plan = plan
        self.curve: list[Point] = []
        self.seconds = 0.0
        self._started = time.perf_counter()

    def start(self) -> None:
        self._started = time.perf_counter()

    def after_step(self, step: int, answering: Answering) -> None:
        self.seconds += time.perf_counter() - self._started
        if step % self._plan.every == 0:
            right, answered = self.exam(answering)
            self.curve.append(Point(step, round(self.seconds, 2), right / answered, answered))
        self.start()

    @property
    def passed(self) -> bool:
        return bool(self.curve) and self.curve[-1].accuracy >= GOAL

    def exam(self, answering: Answering) -> tuple[int, int]:
        """(right, answered) by exact match; stops once so many are wrong that the goal is out of reach."""
        allowed = round((1 - GOAL) * len(self._calls))
        right = answered = 0
        for start in range(0, len(self._calls), _CHUNK):
            calls = self._calls[start : start + _CHUNK]
            texts = answering(self._prompts[start : start + _CHUNK])
            right += sum(text.strip() == call for text, call in zip(texts, calls, strict=True))
            answered += len(calls)
            if answered - right > allowed:
                break
        return right, answered


def learning_speed(bench: Bench, plan: SpeedPlan | None = None) -> Findings:
    """Keys `steps_to_90_over_lora` and `seconds_to_90_over_lora`; every run goes to `learning_speed.json`."""
    plan = plan or (SpeedPlan((0,), 4, 16, 2, 2) if bench.quick else SpeedPlan())
    held_out = tool_calls(plan.items, seed=_HELD_OUT_SEED)
    rates = LORA_RATES[:1] if bench.quick else LORA_RATES
    first = plan.seeds[0]
    tuning = _tune_lora(bench.backbone, plan, held_out, rates)
    best = min(tuning, key=lambda run: (run.goal is None, run.cost))
    theirs, ours = [best], [_train_memory(bench.backbone, plan, held_out, first)]
    for seed in plan.seeds[1:]:
        ours.append(_train_memory(bench.backbone, plan, held_out, seed))
        theirs.append(_train_lora(bench.backbone, plan, held_out, best.learning_rate, seed))
    ratios = (
        _ratio_of_medians("steps_to_90_over_lora", "optimizer steps", ours, theirs, 0),
        _ratio_of_medians("seconds_to_90_over_lora", "seconds of training", ours, theirs, 1),
    )
    method = {
        "how": f"synthetic tool calls, {plan.items} held-out items by exact match, asked every {plan.every} steps; "
        "medians over the seeds, spread over the pairs of one seed; LoRA SFT at its best of "
        f"{sorted(rates)} on seed {first}: {best.learning_rate}",
        "seeds": list(plan.seeds),
        "reached": {"memory": [run.goal is not None for run in ours], "lora": [run.goal is not None for run in theirs]},
    }
    if bench.results is not None:
        runs = [*ours, *tuning, *theirs[1:]]
        document = {**method, **_task(bench.backbone, plan, held_out), "runs": [_plain(run) for run in runs]}
        (bench.results / "learning_speed.json").write_text(json.dumps(document, indent=2) + "\n")
    return Findings(ratios, method)


def _ratio_of_medians(
    key: str, what: str, ours: Sequence[LearningRun], theirs: Sequence[LearningRun], which: int
) -> "MedianRatio":
    pairs = tuple(a.cost[which] / b.cost[which] for a, b in zip(ours, theirs, strict=True))
    reached = all(run.goal is not None for run in ours)
    middle = statistics.median(r.cost[which] for r in ours) / statistics.median(r.cost[which] for r in theirs)
    return MedianRatio(
        key, f"{what} to {GOAL:.0%} held-out exact match over LoRA SFT", pairs, middle if reached else float("inf")
    )


@dataclass(frozen=True)
class MedianRatio(Ratio):
    """Ratio of the two sides' medians; infinite if a run of ours missed the goal."""

    of_medians: float = float("nan")

    @property
    def value(self) -> float:
        return self.of_medians


def _train_memory(backbone: Backbone, plan: SpeedPlan, held_out: Sequence[ToolCall], seed: int) -> LearningRun:
    host = AdapterHost(backbone)
    host.create("memory", MemoryConfig(), seed=seed)
    exam = _Exam(backbone, held_out, plan)

    def answering(prompts: list[PromptIds]) -> list[str]:
        requests = [GenerationRequest(prompt, Sampling(_NEW_TOKENS), "memory") for prompt in prompts]
        return [answer.text for answer in generate_all(host, requests, batch_size=_CHUNK)]

    def on_step(report: StepReport) -> None:
        exam.after_step(report.step, answering)

    def should_stop() -> bool:
        return exam.passed or (bool(exam.curve) and exam.curve[-1].step >= plan.most_steps)

    config = TrainingConfig(seed=seed)
    data = _training_data(backbone, plan, held_out, seed)
    exam.start()
    with contextlib.suppress(Cancelled):  # the goal or the last step was reached
        train_weaver(host, "memory", data, config, control=RunControl(on_step=on_step, should_stop=should_stop))
    return LearningRun("memory", config.learning_rate, seed, tuple(exam.curve))


def _tune_lora(
    backbone: Backbone, plan: SpeedPlan, held_out: Sequence[ToolCall], rates: Sequence[float]
) -> list[LearningRun]:
    """A run of the first seed at each rate; one that is already slower than the best so far ends there."""
    runs: list[LearningRun] = []
    for rate in rates:
        runs.append(_train_lora(backbone, plan, held_out, rate, plan.seeds[0]))
        if (goal := runs[-1].goal) is not None:
            plan = replace(plan, most_steps=goal.step)
    return runs


def _train_lora(
    backbone: Backbone, plan: SpeedPlan, held_out: Sequence[ToolCall], rate: float, seed: int
) -> LearningRun:
    lora = PlainLora(backbone, learning_rate=rate, seed=seed)
    exam = _Exam(backbone, held_out, plan)
    config = TrainingConfig(seed=seed)
    data = _training_data(backbone, plan, held_out, seed)

    def answering(prompts: list[PromptIds]) -> list[str]:
        return answer_with(lora, backbone, prompts, _NEW_TOKENS)

    exam.start()
    for step in range(plan.most_steps):
        lora.step(batch_of_step(data.examples, config, step), schedule=config)
        exam.after_step(step + 1, answering)
        if exam.passed:
            break
    return LearningRun("lora", rate, seed, tuple(exam.curve))


def _training_data(backbone: Backbone, plan: SpeedPlan, held_out: Sequence[ToolCall], seed: int) -> ExampleSet:
    items = tool_calls(plan.examples, seed=seed, without=frozenset(item.request for item in held_out))
    return build_examples(backbone.profile, [{"messages": item.messages} for item in items], max_tokens=512)


@torch.inference_mode()
def answer_with(lora: PlainLora, backbone: Backbone, prompts: Sequence[PromptIds], new_tokens: int) -> list[str]:
    """Greedy answers of the adapted base through transformers, left-padded."""
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    whole = lora.model.generate(  # type: ignore[no-untyped-call]  # PEFT leaves it untyped
        input_ids=ids.to(backbone.device),
        attention_mask=mask.to(backbone.device),
        do_sample=False,
        max_new_tokens=new_tokens,
    )
    return [str(backbone.tokenizer.decode(row[width:], skip_special_tokens=True)) for row in whole]


def _task(backbone: Backbone, plan: SpeedPlan, held_out: Sequence[ToolCall]) -> dict[str, Any]:
    """What the numbers are to be compared with."""
    host, exam = AdapterHost(backbone), _Exam(backbone, held_out, plan)

    def answering(prompts: list[PromptIds]) -> list[str]:
        requests = [GenerationRequest(prompt, Sampling(_NEW_TOKENS)) for prompt in prompts]
        return [answer.text for answer in generate_all(host, requests, batch_size=_CHUNK)]

    right, answered = exam.exam(answering)
    [(answer, count)] = Counter(item.call for item in held_out).most_common(1)
    return {
        "memory_config": MemoryConfig().to_mapping(),
        "training_config": TrainingConfig().to_mapping(),
        "bare_base_accuracy": right / answered,
        "most_frequent_answer": {"answer": answer, "share": count / len(held_out)},
        "example": asdict(held_out[0]),
    }


def _plain(run: LearningRun) -> dict[str, Any]:
    steps, seconds = run.cost
    reached = run.goal is not None
    return {
        "method": run.method,
        "learning_rate": run.learning_rate,
        "seed": run.seed,
        "steps_to_goal": steps if reached else None,
        "seconds_to_goal": seconds if reached else None,
        "curve": [asdict(point) for point in run.curve],
    }
