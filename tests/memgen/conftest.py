"""The tiny base in float32, where equal means equal, and a memory that was trained for some steps."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from memgen.artifacts.artifact import save_artifact
from memgen.artifacts.report import TrainingReport
from memgen.backbone.loading import Backbone, load_backbone
from memgen.config import MemoryConfig, TrainingConfig
from memgen.memory.host import AdapterHost
from memgen.memory.weights import Memory
from memgen.training.examples import build_examples
from memgen.training.weaver.sft import train_weaver

CONFIG = MemoryConfig(latents=4, inference_latents=3, max_insertions=0, rank=4, alpha=8)
LETTERS = tuple("abcdefghijklmnop,.\n")
"""Delimiters that a random model writes often."""
SHAPES = pytest.mark.parametrize(
    "shape",
    [{"form": "cache"}, {"form": "embedding"}, {"form": "cache", "reread_tokens": 3}],
    ids=["cache", "embedding", "rereading"],
)
"""What decides about an insertion; the last reads less of a long prompt again than all."""


def conversations(count: int, word: str = "yes") -> list[dict[str, object]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"say {word} {number}" + "!" * (number % 5)},
                {"role": "assistant", "content": f"{word} {number}"},
            ]
        }
        for number in range(count)
    ]


@pytest.fixture(scope="session")
def backbone(tiny_base: Path) -> Backbone:
    return load_backbone(str(tiny_base), cache_dir=tiny_base.parent, dtype=torch.float32)


@pytest.fixture
def host(backbone: Backbone) -> AdapterHost:
    return AdapterHost(backbone)


@pytest.fixture(scope="session")
def artifacts(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of two different trained memories, `yes` and `no`."""
    folders = {}
    for seed, word in enumerate(("yes", "no")):
        host = AdapterHost(backbone)
        host.create(word, CONFIG, seed=seed)
        data = build_examples(backbone.profile, conversations(12, word), max_tokens=500)
        report = train_weaver(host, word, data, TrainingConfig(steps=8, batch_size=4, warmup_steps=1))
        folders[word] = tmp_path_factory.mktemp("artifacts") / word
        save_artifact(host, word, folders[word], report)
    return folders


def randomise(memory: Memory, seed: int, spread: float = 0.1) -> None:
    """Move every tensor of a memory away from its start, so that each of them matters."""
    generator = torch.Generator().manual_seed(seed)
    loras = [lora for lora in (memory.weaver, memory.trigger) if lora is not None]
    parameters = [*memory.parameters(), *(p for lora in loras for p in lora.parameters())]
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)


@pytest.fixture(scope="session")
def random_artifact(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes the folder of a memory with random weights, once for each configuration."""

    @functools.cache
    def make(seed: int = 0, **config: Any) -> Path:
        host = AdapterHost(backbone)
        usual = {"latents": 4, "inference_latents": 3, "rank": 4, "alpha": 8, "delimiters": LETTERS}
        randomise(host.create("m", MemoryConfig(**{**usual, **config}), seed=seed), seed)
        folder = tmp_path_factory.mktemp("random") / "m"
        save_artifact(host, "m", folder, TrainingReport(1, 0, 0, 1, 1, 1.0, (1.0,), ()))
        return folder

    return make


def unlike_queries(memory: Memory, base: Backbone, seed: int = 1) -> Memory:
    """Start the queries from different tokens: of copies of one, a tiny base learns too slowly for a test."""
    generator = torch.Generator().manual_seed(seed)
    for queries in (memory.prompt_queries, memory.inference_queries):
        queries.start_from(base.model.get_input_embeddings().weight, generator)
    return memory
