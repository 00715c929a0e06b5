"""The engine and the training step against the published algorithm, read literally (`tests.reference`).

That reading has form `embedding`, one row at a time, and no cache at all: each token reads the whole context again.
(The public code keeps a cache between insertions while generating; it drops it at each insertion.)
"""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from bench.speed.generation import PROMPT_TOKENS, answer_whole, real_prompts
from bench.speed.memories import GENERATING, INSERTIONS, TRAINING, plant, save
from bench.speed.ratios import Bench, Findings, Ratio
from bench.speed.training import WeaverStep, agent_batch
from memgen.backbone.loading import Backbone
from memgen.config import MemoryConfig
from memgen.generation.requests import Generation
from memgen.memory.host import AdapterHost
from memgen.training.examples import Example
from tests.reference import ask_trigger, loss, open_context
from tests.reference_memory import ReferenceMemory


def generation(bench: Bench) -> Findings:
    """Keys `reference_over_engine_256` and `_1024`."""
    host = AdapterHost(bench.backbone)
    plant(host, "ours", GENERATING)
    reference = plant_reference(host, GENERATING)
    prompts = real_prompts(bench.backbone, 1, PROMPT_TOKENS)
    ratios: list[Ratio] = []
    seconds: dict[str, list[float]] = {}
    for new_tokens, stride, pairs in ((256, 16, 3), (1024, 64, 2)):
        key, count, every = f"reference_over_engine_{new_tokens}", new_tokens, stride
        if bench.quick:
            count, every = 64, 32
        [answer] = answer_whole(host, prompts, ["ours"], min(count, 64))
        theirs, ours = [], []
        for _ in range(bench.pairs(pairs)):
            theirs.append(_reference_seconds(bench, reference, answer, prompts[0], count, every))
            ours.append(bench.seconds(partial(answer_whole, host, prompts, ["ours"], count)))
        what = f"{new_tokens} new tokens, batch 1, {INSERTIONS} insertions: time of the published algorithm over ours"
        ratios.append(Ratio(key, what, tuple(a / b for a, b in zip(theirs, ours, strict=True))))
        seconds[key] = [round(sorted(side)[len(side) // 2], 2) for side in (theirs, ours)]
    method = {
        "how": f"literal reference: form embedding, {INSERTIONS} insertions at the places of ours, no cache. Its time "
        "is that of all its insertions (trigger and weaver each read the whole context) plus a sample of its "
        "decoding steps, integrated: every 16th step at 256 new tokens, every 64th at 1,024",
        "seconds_reference_and_ours": seconds,
    }
    return Findings(tuple(ratios), method)


@torch.no_grad()
def _reference_seconds(
    bench: Bench, memory: ReferenceMemory, answer: Generation, prompt: tuple[int, ...], new_tokens: int, stride: int
) -> float:
    """Time that the reference needs for `new_tokens` tokens with the insertions of `answer`.

    Each run of `stride` steps counts as `stride` times its middle one. Which tokens stand in the context does not
    matter to the time, so the answer is repeated to its length.
    """
    points = {decision.position - (len(prompt) - 1) for decision in answer.insertions}
    context = open_context(memory, bench.backbone.model, list(prompt), ())
    total = 0.0
    for step in range(new_tokens):
        if step in points:
            total += bench.seconds(lambda: ask_trigger(context))
            total += bench.seconds(partial(context.weave, "inference_queries" if step else "prompt_queries"))
        if step % stride == stride // 2:
            total += stride * bench.seconds(lambda: int(context.logits()[-1].argmax()))
        context.append(answer.token_ids[step % len(answer.token_ids)])
    return total


def training(bench: Bench) -> Findings:
    """Keys `train_over_reference` and `train_over_reference_cached`."""
    host = AdapterHost(bench.backbone)
    plant(host, "ours", TRAINING)
    reference = plant_reference(host, TRAINING)
    batch = agent_batch(bench.backbone.profile, 2 if bench.quick else 8)
    steps = {cached: WeaverStep(host, "ours", batch, cached=cached) for cached in (False, True)}
    for step in steps.values():
        step()
    row = batch[len(batch) // 2]
    literal = partial(train_literally, reference, bench.backbone, row)
    tokens = sum(example.tokens for example in batch)
    values: dict[bool, list[float]] = {False: [], True: []}
    literal_seconds: list[float] = []
    for _ in range(bench.pairs(2)):
        literal_seconds.append(bench.seconds(literal))
        for cached, step in steps.items():
            ours_per_token = bench.seconds(step) / tokens
            values[cached].append(literal_seconds[-1] / row.tokens / ours_per_token)
    what = f"SFT step, batch {len(batch)}, {INSERTIONS} insertions: tokens/s over the published algorithm"
    ratios = (
        Ratio("train_over_reference", what, tuple(values[False])),
        Ratio("train_over_reference_cached", f"{what}, prefixes cached", tuple(values[True])),
    )
    method = {
        "how": "literal reference: form embedding, loss and backward pass of one row of middle length, which is how "
        "it trains a batch; its rate is that row's tokens over that time. Ours is a whole optimizer step",
        "reference_seconds_a_row": round(sorted(literal_seconds)[len(literal_seconds) // 2], 2),
        "reference_row_tokens": row.tokens,
    }
    return Findings(ratios, method)


def train_literally(reference: ReferenceMemory, backbone: Backbone, row: Example) -> None:
    """Loss and backward pass of one row, which is how the reference trains a batch."""
    value = loss(reference, backbone.model, list(row.prompt_ids), list(row.target_ids))
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def plant_reference(host: AdapterHost, config: MemoryConfig) -> ReferenceMemory:
    """The literal reference of form `embedding` with random weights, over the host's base."""
    plant(host, "published", replace(config, form="embedding"))
    with tempfile.TemporaryDirectory(prefix="memgen-bench-") as folder:
        saved = save(host, "published", Path(folder) / "memory")
        return ReferenceMemory(host.backbone.model, saved, host.backbone.tokenizer)
