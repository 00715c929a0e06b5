"""Finding and loading bases."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from memgen.backbone.loading import fastest_dtype, find_revision, load_backbone, load_profile, read_base
from memgen.config import MemoryConfig
from memgen.errors import ConfigError, ModelNotFound
from memgen.memory.host import AdapterHost
from tests.fixtures_model import save_tiny_base


def test_a_local_folder_is_frozen_and_hashed(tiny_base: Path) -> None:
    backbone = load_backbone(str(tiny_base), cache_dir=tiny_base.parent)
    assert backbone.model.dtype == fastest_dtype("cpu")
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert backbone.revision.startswith("sha256:")
    assert backbone.revision == find_revision(str(tiny_base), cache_dir=tiny_base.parent)
    assert (backbone.max_tokens, backbone.hidden_size, backbone.stop_token_ids) == (1024, 64, frozenset({2}))
    assert load_profile(str(tiny_base), cache_dir=tiny_base.parent)[1] == 1024


@pytest.mark.parametrize(
    ("instructions", "dtype"),
    [((), torch.float32), (("avx512_bf16",), torch.bfloat16), (("amx_bf16",), torch.bfloat16)],
)
def test_the_default_dtype_is_what_the_processor_multiplies(
    monkeypatch: pytest.MonkeyPatch, instructions: tuple[str, ...], dtype: torch.dtype
) -> None:
    found = dict.fromkeys(("avx2", "avx512_bf16", "amx_bf16"), False) | dict.fromkeys(instructions, True)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert fastest_dtype("cpu") == dtype
    assert fastest_dtype("cuda") == torch.bfloat16


def test_changed_weights_are_another_revision(tmp_path: Path) -> None:
    one, other = save_tiny_base(tmp_path / "one"), save_tiny_base(tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert find_revision(str(one), cache_dir=tmp_path) != find_revision(str(other), cache_dir=tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="'nobody/nothing' .*not on this machine yet, and the hub does not answer"):
        load_backbone("nobody/nothing", cache_dir=tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("./nowhere", str(tmp_path / "nowhere"), "~/nowhere", "a/b/c"):
        with pytest.raises(ModelNotFound, match="there is no such folder. Expected a folder with config.json"):
            load_backbone(name, cache_dir=tmp_path)
    with pytest.raises(ModelNotFound, match="it is no name of the hub"):
        load_backbone("no body", cache_dir=tmp_path)
    with pytest.raises(ModelNotFound, match=r"has no config.json; expected config.json and \*.safetensors"):
        load_backbone(str(tmp_path / "empty"), cache_dir=tmp_path)


def test_removing_a_memory_leaves_the_others(host: AdapterHost) -> None:
    host.create("a", MemoryConfig(latents=2))
    host.create("b", MemoryConfig(latents=2))
    host.remove("a")
    assert list(host.memories) == ["b"]
    host.remove("b")
    host.create("c", MemoryConfig(latents=2))
    assert list(host.memories) == ["c"]


def test_copy_needs_equal_configs(host: AdapterHost) -> None:
    host.create("a", MemoryConfig(latents=2))
    host.create("b", MemoryConfig(latents=3))
    with pytest.raises(ConfigError, match="latents=3.*latents=2"):
        host.copy("a", "b")


@pytest.mark.parametrize(
    ("generation", "eos", "stops"),
    [
        ({"eos_token_id": [1]}, "<|im_end|>", {1, 2}),
        ({"eos_token_id": [1, 2]}, "<|im_end|>", {1, 2}),
        ({"eos_token_id": 1}, "<|im_start|>", {1, 2}),
        ({"eos_token_id": None}, "<|im_end|>", {2}),
        ({}, None, {2}),
    ],
)
def test_every_end_stops(
    tiny_base: Path, tmp_path: Path, generation: dict[str, object], eos: str | None, stops: set[int]
) -> None:
    """The generation config's, the tokenizer's, and the one that the template writes, which is token 2 here."""
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": eos}))
    assert load_backbone(str(folder), cache_dir=tmp_path).stop_token_ids == stops
    assert read_base(str(folder), cache_dir=tmp_path).profile.stop_token_ids == stops
