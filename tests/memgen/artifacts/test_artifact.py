"""Artifacts: what is saved is what is loaded, and nothing else is."""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from memgen.artifacts.artifact import load_artifact, save_artifact
from memgen.artifacts.report import TrainingReport
from memgen.backbone.loading import Backbone, load_backbone
from memgen.config import MemoryConfig
from memgen.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing, ConfigError
from memgen.generation.engine import generate
from memgen.generation.requests import GenerationRequest
from memgen.generation.sampling import Sampling
from memgen.memory.host import AdapterHost
from memgen.routing.loaded import LoadedMemories
from tests.fixtures_model import save_tiny_base
from tests.memgen.conftest import CONFIG

UNTRAINED = TrainingReport(0, 0, 0, 0, 0, 0.0, (), ())


@pytest.fixture
def folder(artifacts: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(artifacts["yes"], tmp_path / "artifact"))


def test_round_trip_is_exact(host: AdapterHost, folder: Path, tmp_path: Path) -> None:
    load_artifact(host, "a", folder)
    report = TrainingReport(**{**json.loads((folder / "report.json").read_text())})
    manifest = save_artifact(host, "a", tmp_path / "again", report)
    assert json.loads((tmp_path / "again/manifest.json").read_text()) == json.loads(
        (folder / "manifest.json").read_text()
    )
    load_artifact(host, "b", tmp_path / "again", manifest_sha256=manifest)
    first, second = host.memories["a"], host.memories["b"]
    for one, other in zip(first.weaver_parameters(), second.weaver_parameters(), strict=True):
        assert torch.equal(one, other)


def test_peft_loads_weaver_and_trigger(
    host: AdapterHost, backbone: Backbone, random_artifact: Callable[..., Path]
) -> None:
    folder = random_artifact(trigger="lora")
    memory = load_artifact(host, "a", folder)
    for part, lora in (("weaver", memory.weaver), ("trigger", memory.trigger)):
        model = PeftModel.from_pretrained(copy.deepcopy(backbone.model), folder / part)
        theirs = [p for name, p in model.named_parameters() if "lora_" in name]
        assert lora is not None
        assert len(theirs) == 2 * 2 * len(memory.config.target_modules)  # A and B, two layers
        for mine, other in zip(lora.parameters(), theirs, strict=True):
            assert torch.equal(mine, other)


@pytest.mark.parametrize("form", ["cache", "embedding"])
@pytest.mark.parametrize("trigger", ["always", "lora", "head"])
def test_every_tensor_comes_back(
    host: AdapterHost, random_artifact: Callable[..., Path], tmp_path: Path, form: str, trigger: str
) -> None:
    folder = random_artifact(form=form, trigger=trigger)
    memory = load_artifact(host, "a", folder)
    save_artifact(host, "a", tmp_path / "again", TrainingReport(1, 0, 0, 1, 1, 1.0, (1.0,), ()))
    assert (tmp_path / "again/manifest.json").read_text() == (folder / "manifest.json").read_text()
    assert (folder / "trigger").is_dir() == (trigger == "lora")
    assert len(memory.trigger_parameters()) == {"always": 0, "head": 2, "lora": 2 * 2 * 7 + 2}[trigger]


def test_a_plain_lora_is_pefts_own_folder(
    host: AdapterHost, backbone: Backbone, random_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    folder = random_artifact(form="lora", latents=0, inference_latents=0, delimiters=())
    memory = load_artifact(host, "a", folder)
    model = PeftModel.from_pretrained(copy.deepcopy(backbone.model), folder)
    theirs = [p for name, p in model.named_parameters() if "lora_" in name]
    for mine, other in zip(memory.weaver_parameters(), theirs, strict=True):
        assert torch.equal(mine, other)
    assert json.loads((folder / "memory.json").read_text())["trained"] == ["lora"]
    assert not {"memory.safetensors", "weaver", "trigger"} & {path.name for path in folder.iterdir()}
    save_artifact(host, "a", tmp_path / "again", TrainingReport(1, 0, 0, 1, 1, 1.0, (1.0,), ()))
    assert (tmp_path / "again/manifest.json").read_text() == (folder / "manifest.json").read_text()


def test_a_plain_lora_leaves_the_head_as_it_is(host: AdapterHost) -> None:
    with pytest.raises(ConfigError, match=r"target_modules names \['lm_head'\], the head of"):
        host.create("a", MemoryConfig(form="lora", target_modules=("q_proj", "lm_head")))


def test_an_artifact_from_before_prompts_were_read_again_is_loaded(host: AdapterHost, folder: Path) -> None:
    description = json.loads((folder / "memory.json").read_text())
    assert description["config"].pop("reread_tokens") == 0
    _rewrite(folder, description)
    assert load_artifact(host, "a", folder).config.reread_tokens == 0


def _rewrite(folder: Path, description: dict[str, Any]) -> None:
    (folder / "memory.json").write_text(json.dumps(description))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["memory.json"] = hashlib.sha256((folder / "memory.json").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": 5}, r"memory.safetensors: prompt_queries.latents is \(4, 64\), the config needs \(5, 64\)"),
        ({"form": "embedding"}, r"memory.safetensors: tensors missing \['reasoner_to_weaver.bias'"),
        ({"rank": 8}, r"weaver/adapter_model.safetensors: .*weight is \(.*, the config needs \("),
        ({"trigger": "lora"}, r"memory.safetensors: tensors missing \['trigger_head.bias'"),
        ({"target_modules": ["q_proj"]}, r"adapter_model.safetensors: tensors missing \[\], unexpected \["),
    ],
    ids=str,
)
def test_files_that_do_not_fit_the_config_are_named(
    host: AdapterHost, folder: Path, change: dict[str, object], message: str
) -> None:
    description = json.loads((folder / "memory.json").read_text())
    description["config"] |= change
    _rewrite(folder, description)
    with pytest.raises(ArtifactMismatch, match=message):
        load_artifact(host, "a", folder)
    assert "a" not in host.memories


@pytest.mark.parametrize("name", ["memory.json", "memory.safetensors", "weaver/adapter_model.safetensors"])
def test_a_changed_byte_is_found(host: AdapterHost, folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ArtifactCorrupt, match=rf"{name}: sha256 is \w+, manifest.json says \w+"):
        load_artifact(host, "a", folder)
    assert "a" not in host.memories


def test_a_missing_file_is_named(host: AdapterHost, folder: Path) -> None:
    (folder / "weaver/adapter_model.safetensors").unlink()
    with pytest.raises(ArtifactMissing, match="adapter_model.safetensors is missing"):
        load_artifact(host, "a", folder)
    with pytest.raises(ArtifactMissing, match="has no manifest.json"):
        load_artifact(host, "a", folder.parent)


def test_another_manifest_than_the_registrys_is_refused(host: AdapterHost, folder: Path) -> None:
    with pytest.raises(ArtifactCorrupt, match="the registry recorded 00"):
        load_artifact(host, "a", folder, manifest_sha256="00")


def test_another_base_is_refused(folder: Path, tmp_path: Path) -> None:
    other = load_backbone(str(save_tiny_base(tmp_path / "other", seed=5)), cache_dir=tmp_path, dtype=torch.float32)
    with pytest.raises(ArtifactMismatch, match=r"base_revision is 'sha256:\w+', but the loaded base .* has 'sha256:"):
        load_artifact(AdapterHost(other), "a", folder)


@pytest.mark.parametrize("part", ["tokenizer", "chat_template", "generation_config"])
def test_a_base_that_reads_otherwise_is_refused_by_what_changed(host: AdapterHost, folder: Path, part: str) -> None:
    description = json.loads((folder / "memory.json").read_text())
    assert description["base_identity"] == host.backbone.identity.to_mapping()
    _rewrite(folder, {**description, "base_identity": {**description["base_identity"], part: "another"}})
    with pytest.raises(ArtifactMismatch, match=rf"made with another .*{part}\.j.* than the loaded base"):
        load_artifact(host, "a", folder)


def test_an_artifact_that_knows_the_weights_alone_is_loaded(host: AdapterHost, folder: Path) -> None:
    description = json.loads((folder / "memory.json").read_text())
    del description["base_identity"]
    _rewrite(folder, description)
    assert load_artifact(host, "a", folder)


def test_an_untrained_memory_is_refused(host: AdapterHost, tmp_path: Path) -> None:
    host.create("fresh", CONFIG)
    save_artifact(host, "fresh", tmp_path / "fresh", UNTRAINED)
    with pytest.raises(ArtifactMismatch, match="trained_steps is 0; it was never trained"):
        load_artifact(host, "a", tmp_path / "fresh")


def test_a_folder_of_format_1_still_loads(host: AdapterHost, folder: Path) -> None:
    """As the first release wrote it: one set of queries, insertions at the prompt's end only."""
    current = load_artifact(host, "current", folder)
    description = json.loads((folder / "memory.json").read_text())
    kept = {"form", "trigger", "latents", "rank", "alpha", "target_modules"}
    config = {key: value for key, value in description["config"].items() if key in kept}
    description |= {"format": 1, "config": {**config, "insertion": "prompt_end"}}
    (folder / "memory.json").write_text(json.dumps(description))
    tensors = {
        key.removeprefix("prompt_"): value
        for key, value in load_file(folder / "memory.safetensors").items()
        if key.startswith("prompt_")
    }
    save_file(tensors, folder / "memory.safetensors")
    manifest = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _listed(folder)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    loaded = load_artifact(host, "old", folder)
    assert loaded.config == replace(current.config, inference_latents=8)
    for one, other in zip(loaded.weaver_parameters(), current.weaver_parameters(), strict=True):
        assert torch.equal(one, other)


def _listed(folder: Path) -> list[str]:
    return list(json.loads((folder / "manifest.json").read_text()))


def test_the_least_recently_used_memory_is_dropped(host: AdapterHost, artifacts: dict[str, Path]) -> None:
    memories, fetched = LoadedMemories(host, capacity=2), []

    def ensure(name: str) -> None:
        def fetch(folder: Path) -> None:
            fetched.append(name)
            shutil.copytree(artifacts["yes"], folder, dirs_exist_ok=True)

        manifest = artifacts["yes"] / "manifest.json"
        memories.ensure(name, hashlib.sha256(manifest.read_bytes()).hexdigest(), fetch)
        memories.trim(keep=frozenset([name]))

    for name in ("a", "b", "a", "c", "a", "b"):
        ensure(name)
    assert fetched == ["a", "b", "c", "b"]
    assert sorted(host.memories) == ["a", "b"]


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor does not multiply bfloat16 in hardware"
)
@pytest.mark.parametrize("form", ["cache", "embedding"])
@pytest.mark.parametrize("trigger", ["always", "lora"])
def test_a_base_that_only_answers_loads_what_was_trained_on_one_that_trains(
    random_artifact: Callable[..., Path], tiny_base: Path, form: str, trigger: str
) -> None:
    """Its weights are packed, so nothing but its decoder may run them."""
    folder = random_artifact(form=form, trigger=trigger)
    answers = []
    for pack in (False, True):
        base = load_backbone(str(tiny_base), cache_dir=tiny_base.parent, dtype=torch.bfloat16, pack_weights=pack)
        _ = base.decoder  # packs, as when it has answered before
        host = AdapterHost(base)
        load_artifact(host, "m", folder)
        request = GenerationRequest(tuple(range(5, 40)), Sampling(1, logprobs=True, top_logprobs=3), "m")
        [answer] = generate(host, [request])
        answers.append(answer)
    plain, packed = answers
    for mine, theirs in zip(plain.decisions, packed.decisions, strict=True):
        assert (mine.invoked, mine.latents) == (theirs.invoked, theirs.latents)
        assert mine.probability == pytest.approx(theirs.probability, abs=0.05)
    assert trigger == "lora" or plain.insertions[0].latents == 4
    assert plain.alternatives is not None
    assert packed.alternatives is not None
    found = [{a.token: a.logprob for a in answer.alternatives[0]} for answer in answers]
    shared = found[0].keys() & found[1].keys()
    assert len(shared) >= 2
    assert all(abs(found[0][token] - found[1][token]) < 0.2 for token in shared)
