"""A trigger that was not trained yet: it must not keep the memory silent, and must be told from a trained one."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from memgen.artifacts.artifact import load_artifact, save_artifact, trained_parts
from memgen.artifacts.report import TrainingReport
from memgen.generation.engine import generate
from memgen.generation.requests import GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.routing.loaded import LoadedMemories

REPORT = TrainingReport(1, 0, 0, 1, 1, 1.0, (1.0,), ())


def untrained(host: AdapterHost, folder: Path, made: Path) -> Path:
    """The artifact `made`, with the trigger's head as it was created."""
    memory = load_artifact(host, "made", made)
    with torch.no_grad():
        for parameter in memory.trigger_head.parameters():
            parameter.zero_()
    save_artifact(host, "made", folder, REPORT)
    return folder


def serve(host: AdapterHost, folder: Path) -> list[bool]:
    """The decisions of a greedy answer of a loaded memory."""
    loaded = LoadedMemories(host, 1)
    manifest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()

    def fetch(target: Path) -> None:
        shutil.copytree(folder, target, dirs_exist_ok=True)

    loaded.ensure("served", manifest, fetch)
    [answer] = generate(host, [GenerationRequest((5, 6, 7), Sampling(4), "served")])
    return [decision.invoked for decision in answer.decisions]


@pytest.mark.parametrize("form", ["cache", "embedding"])
@pytest.mark.parametrize("kind", ["lora", "head"])
def test_memory_is_woven_until_it_is_trained(
    host: AdapterHost, random_artifact: Callable[..., Path], tmp_path: Path, kind: str, form: str
) -> None:
    folder = untrained(host, tmp_path / "untrained", random_artifact(trigger=kind, form=form, max_insertions=0))
    assert json.loads((folder / "memory.json").read_text())["trained"] == ["weaver"]
    assert serve(host, folder) == [True]

    memory = host.memories["made"]
    with torch.no_grad():
        memory.trigger_head.bias.copy_(torch.tensor([1.0, -1.0]))  # SKIP, whatever it reads
    assert trained_parts(memory) == ["weaver", "trigger"]
    save_artifact(host, "made", tmp_path / "trained", REPORT)
    assert json.loads((tmp_path / "trained" / "memory.json").read_text())["trained"] == ["weaver", "trigger"]
    assert serve(host, tmp_path / "trained") == [False]


def test_who_decides_follows_the_trigger(host: AdapterHost, random_artifact: Callable[..., Path]) -> None:
    memory = load_artifact(host, "m", random_artifact(trigger="head"))
    memory.weave_until_trigger_is_trained()
    assert (memory.has_untrained_trigger, memory.decides) == (False, "head")
    plain = load_artifact(host, "p", random_artifact(trigger="always"))
    plain.weave_until_trigger_is_trained()
    assert (plain.has_untrained_trigger, plain.decides, trained_parts(plain)) == (False, "always", ["weaver"])
