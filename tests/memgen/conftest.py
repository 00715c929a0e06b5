"""The tiny base in float32, where equal means equal, and a memory that was trained for some steps."""

from pathlib import Path

import pytest
import torch

from memgen.artifact import save_artifact
from memgen.backbone import Backbone, load_backbone
from memgen.config import MemoryConfig, TrainingConfig
from memgen.training.examples import build_examples
from memgen.training.weaver_sft import train_weaver
from memgen.weaver import AdapterHost

CONFIG = MemoryConfig(latents=4, rank=4, alpha=8)


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
        data = build_examples(backbone.tokenizer, conversations(12, word), max_tokens=500)
        report = train_weaver(host, word, data, TrainingConfig(steps=8, batch_size=4, warmup_steps=1))
        folders[word] = tmp_path_factory.mktemp("artifacts") / word
        save_artifact(host, word, folders[word], report)
    return folders
