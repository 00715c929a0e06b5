"""The memories that are benchmarked: shaped as training leaves them, but made in no time and firing on command.

How fast a memory runs does not depend on its values, except for when its trigger fires and when the answer comes to a
delimiter. So both are arranged, and `check_insertions` looks afterwards whether it came out so.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from bench.speed.ratios import InvalidRun
from memgen.artifacts.artifact import save_artifact
from memgen.artifacts.report import TrainingReport
from memgen.config import MemoryConfig
from memgen.generation.requests import Generation
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory, QueryLatents

INSERTIONS = 6
GENERATING = MemoryConfig(
    trigger="lora",
    latents=8,
    inference_latents=8,
    max_insertions=INSERTIONS - 1,
    # The colon is not a default; with it every row comes to five delimiters in good time, at steps of its own.
    delimiters=(*MemoryConfig().delimiters, ":"),
)
TRAINING = replace(GENERATING, trigger="always", delimiters=MemoryConfig().delimiters)
"""A shape without a trigger, which weaver training does not use."""
_SPREAD = 0.01
"""Standard deviation of what training would have changed: B of the LoRAs, and the head."""
_MARGIN = 4.0
"""INVOKE over SKIP in the head's bias, so that what the trigger read moves the probability but not the decision."""
_FIRST, _LATER = "I would start with the first of these", " and after that, the next one."
"""The queries' words. With random ones an untrained memory makes the base repeat a few tokens, without delimiters."""


def plant(host: AdapterHost, name: str, config: MemoryConfig, *, seed: int = 0) -> Memory:
    """A memory with nonzero LoRA whose trigger, if learned, fires at every decision point."""
    memory = host.create(name, config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for lora in (memory.weaver, memory.trigger):
            for _, b in lora.factors.values() if lora is not None else ():
                b.copy_(_SPREAD * torch.randn(b.shape, generator=generator))
        if memory.trigger is not None:
            head = memory.trigger_head
            head.weight.copy_(_SPREAD / 10 * torch.randn(head.weight.shape, generator=generator))
            head.bias.copy_(torch.tensor([-_MARGIN / 2, _MARGIN / 2]))
        if config.form == "cache":
            _say(host, memory.prompt_queries, _FIRST)
            _say(host, memory.inference_queries, _LATER)
    return memory


def save(host: AdapterHost, name: str, folder: Path) -> Path:
    """The memory's artifact folder, for the reference to read."""
    report = TrainingReport(0, 0, 0, steps=1, tokens=0, seconds=0.0, losses=(), flags=())
    save_artifact(host, name, folder, report)
    return folder


def check_insertions(answers: Sequence[Generation], expected: int = INSERTIONS) -> None:
    """Raise InvalidRun unless every row wove `expected` times, each time after its trigger had read the context.

    A trigger that did not read would give the same probability each time.
    """
    for number, answer in enumerate(answers):
        if len(answer.insertions) != expected:
            raise InvalidRun(f"row {number} made {len(answer.insertions)} insertions; the key promises {expected}")
        probabilities = {decision.probability for decision in answer.decisions}
        if len(probabilities) < 2 or max(probabilities) == 1.0:
            raise InvalidRun(f"the trigger of row {number} did not read its context: probabilities {probabilities}")


def _say(host: AdapterHost, queries: QueryLatents, words: str) -> None:
    ids = host.backbone.profile.text_ids(words)
    count = len(queries.latents)
    cycled = torch.tensor((ids * count)[:count], device=host.backbone.device)
    queries.latents.copy_(host.backbone.decoder.embed(cycled).float())
