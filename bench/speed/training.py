"""One optimizer step of weaver SFT against one of plain LoRA SFT of the base: time and memory, on real examples."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from bench.plain_lora import PlainLora
from bench.speed.allocations import peak_bytes, tensor_bytes
from bench.speed.memories import INSERTIONS, TRAINING, plant
from bench.speed.ratios import Bench, Findings, InvalidRun, Ratio
from memgen.config import MemoryConfig, TrainingConfig
from memgen.memory.host import AdapterHost
from memgen.tasks.bfcl import single_calls
from memgen.text.delimiters import DelimiterMatcher
from memgen.text.profile import BaseProfile
from memgen.training.examples import Example, build_examples
from memgen.training.forward import PrefixStore, supervised_nll
from memgen.training.layout import insertion_points
from memgen.training.losses import mean_by_example

PROMPT_ONLY = replace(TRAINING, max_insertions=0)
_TOKENS = 250
_PROMPTS, _ANSWERS = range(150, 191), range(60, 101)
_RATE = 1e-5
"""Learning rate of the timed steps; so small that the weights hardly move."""


class WeaverStep:
    """One optimizer step on one batch, as `memgen.training.weaver.sft` does it."""

    def __init__(
        self, host: AdapterHost, memory: str, batch: Sequence[Example], *, cached: bool, checkpointing: bool = False
    ) -> None:
        self._host, self._memory, self._batch, self._checkpointing = host, memory, batch, checkpointing
        self.parameters = host.memories[memory].weaver_parameters()
        self.optimizer = torch.optim.AdamW(self.parameters, lr=_RATE, weight_decay=0.0)
        self.prefixes = PrefixStore(
            host.backbone, 10**11 if cached else 0, [[example.prompt_ids[:-1] for example in batch]]
        )

    def __call__(self) -> None:
        nll, rows = supervised_nll(
            self._host, self._memory, self._batch, self.prefixes, checkpointing=self._checkpointing
        )
        loss = mean_by_example(nll, rows, len(self._batch)).mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.parameters, TrainingConfig().max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def step_time(bench: Bench) -> Findings:
    """Keys `train_over_lora`, `train_over_lora_cached`, and the same with `_prompt_only`."""
    host, batch = _prepared(bench)
    lora = PlainLora(bench.backbone, learning_rate=_RATE)
    ratios = []
    for name, where, pairs in (("six", "", 5), ("one", "_prompt_only", 3)):
        for cached in (False, True):
            step = WeaverStep(host, name, batch, cached=cached)
            key = f"train_over_lora{where}{'_cached' if cached else ''}"
            what = (
                f"SFT step, {INSERTIONS if name == 'six' else 1} insertion(s), prefixes "
                f"{'cached' if cached else 'encoded'}: time over plain LoRA SFT"
            )
            ratios.append(bench.ratio(key, what, step, lambda: lora.step(batch), pairs=pairs))
    seconds = bench.seconds(lambda: lora.step(batch))
    how = "PEFT LoRA r=16 on q and v, no mask, no cache, logits at supervised positions only; the same batch"
    return Findings(tuple(ratios), {"how": how, **_described(batch), "lora_seconds": round(seconds, 2)})


def step_memory(bench: Bench) -> Findings:
    """Key `train_memory_over_lora`; variants with cached prefixes, with checkpointing, and with the base counted."""
    host, batch = _prepared(bench)
    base = tensor_bytes(bench.backbone.model.parameters())
    ours, theirs = {}, {}
    for checkpointing in (False, True):
        lora = PlainLora(bench.backbone, learning_rate=_RATE, checkpointing=checkpointing)
        theirs[checkpointing] = _step_bytes(bench, lora.optimizer, lambda lora=lora: lora.step(batch))
        for cached in (False,) if checkpointing else (False, True):
            step = WeaverStep(host, "six", batch, cached=cached, checkpointing=checkpointing)
            ours[checkpointing, cached] = _step_bytes(bench, step.optimizer, step)
            if cached:
                per_token = bench.backbone.decoder.kv_shape.bytes_per_token
                ours[checkpointing, cached] += per_token * sum(len(e.prompt_ids) - 1 for e in batch)
    key, what = "train_memory_over_lora", "SFT step: peak memory above the base's weights over plain LoRA SFT"
    ratios = (
        Ratio(key, what, (ours[False, False] / theirs[False],)),
        Ratio(f"{key}_cached", f"{what}, prefixes cached", (ours[False, True] / theirs[False],)),
        Ratio(f"{key}_with_base", f"{what}, with them", ((ours[False, False] + base) / (theirs[False] + base),)),
        Ratio(f"{key}_checkpointed", f"{what}, both with checkpointing", (ours[True, False] / theirs[True],)),
    )
    method = {
        "how": "bytes of all tensors alive at the worst moment of a warm step, from the allocator's events (CUDA: its "
        "own peak), plus trained tensors and optimizer state, plus the batch's kept prefixes where cached",
        "mib": {
            "base": _mib(base),
            "lora": _mib(theirs[False]),
            "lora_checkpointed": _mib(theirs[True]),
            "ours": _mib(ours[False, False]),
            "ours_cached": _mib(ours[False, True]),
            "ours_checkpointed": _mib(ours[True, False]),
        },
        **_described(batch),
    }
    return Findings(ratios, method)


def agent_batch(profile: BaseProfile, rows: int) -> list[Example]:
    """Function calls of BFCL with five delimiters or more in the answer, about 250 tokens each.

    Raises:
        InvalidRun: with this base there are too few.
    """
    trajectories = [t for category in ("simple_python", "live_simple") for t in single_calls(category)]
    matcher = DelimiterMatcher.of(profile.tokenizer, TRAINING.delimiters)
    fitting = [
        example
        for example in build_examples(profile, trajectories, max_tokens=_PROMPTS.stop + _ANSWERS.stop).examples
        if len(example.prompt_ids) in _PROMPTS
        and len(example.target_ids) in _ANSWERS
        and len(insertion_points(example, TRAINING, matcher)) == TRAINING.max_insertions
    ]
    if len(fitting) < rows:
        raise InvalidRun(f"{len(fitting)} examples have the lengths and delimiters of the batch; {rows} are needed")
    return sorted(fitting, key=lambda example: abs(example.tokens - _TOKENS))[:rows]


def _prepared(bench: Bench) -> tuple[AdapterHost, list[Example]]:
    host = AdapterHost(bench.backbone)
    configs: dict[str, MemoryConfig] = {"six": TRAINING, "one": PROMPT_ONLY}
    for name, config in configs.items():
        plant(host, name, config)
    return host, agent_batch(bench.backbone.profile, 2 if bench.quick else 8)


def _step_bytes(bench: Bench, optimizer: torch.optim.Optimizer, step: Any) -> int:
    """Peak of a step after a warm one, with what it holds between steps."""
    step()
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return tensor_bytes([*trained, *moments]) + peak_bytes(step, bench.backbone.device)


def _described(batch: Sequence[Example]) -> dict[str, Any]:
    return {
        "batch": "function calls of BFCL (simple_python, live_simple), five delimiters in each answer",
        "rows": len(batch),
        "mean_prompt_tokens": round(statistics.mean(len(e.prompt_ids) for e in batch), 1),
        "mean_answer_tokens": round(statistics.mean(len(e.target_ids) for e in batch), 1),
    }


def _mib(count: int) -> float:
    return round(count / 2**20, 1)
