"""The folder of artifacts, where processes die and others use it at the same time. Without an object store."""

import fcntl
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from memgen.backbone.identity import BaseIdentity
from memgen_vllm.artifacts import ArtifactFolder
from memgen_vllm.errors import NoSuchArtifact, NotKept, NotServed
from memgen_vllm.names import ArtifactName
from memgen_vllm.refusals import check_artifact
from memgen_vllm.served_base import LoadedBase
from memgen_vllm.settings import PluginSettings


def folder(root: Path, **changes: Any) -> ArtifactFolder:
    settings = {"s3_url": None, "s3_bucket": "memgen", "s3_region": "us-east-1", "max_bytes": 0, "models": root}
    return ArtifactFolder(PluginSettings(**{**settings, "folder": root, **changes}))


def put(root: Path, name: str) -> Path:
    (root / name).mkdir(parents=True)
    (root / name / "manifest.json").write_text("{}")
    return root / name


def name_of(number: int) -> ArtifactName:
    return ArtifactName(f"{number:064x}", None)


def test_what_killed_processes_left_is_removed_and_what_is_being_fetched_is_not(tmp_path: Path) -> None:
    left = [put(tmp_path, f"{mark}-{number:064x}") for number, mark in enumerate(("fetching", "dropped"))]
    going_on = put(tmp_path, f"fetching-{2:064x}")
    with (tmp_path / f"{2:064x}.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder(tmp_path).drop_unused()
        assert not any(path.exists() for path in left)
        assert (going_on / "manifest.json").exists()


def test_several_may_drop_at_once(tmp_path: Path) -> None:
    for round_ in range(5):
        for number in range(60):
            put(tmp_path, f"{round_ * 100 + number:064x}")
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: folder(tmp_path).drop_unused(), range(8)))
        assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_the_least_recently_used_goes_first_and_who_is_held_stays(tmp_path: Path) -> None:
    artifacts = folder(tmp_path, max_bytes=3)
    for number in range(3):
        put(tmp_path, f"{number:064x}")
        artifacts.ensure(name_of(number))
    assert artifacts.here(name_of(0)) == tmp_path / f"{0:064x}"
    with artifacts.held(name_of(2)):
        artifacts.drop_unused()
    assert artifacts.here(name_of(1)) is None
    assert artifacts.here(name_of(2)) is not None
    with pytest.raises(NoSuchArtifact, match="names no store to fetch it from"):
        artifacts.ensure(name_of(1))


def test_a_folder_that_takes_nothing_is_said_to_be_the_fault(tmp_path: Path) -> None:
    (tmp_path / f"{1:064x}.lock").mkdir()
    with pytest.raises(NotKept, match=f"{1:064x} cannot be kept in {tmp_path}"):
        folder(tmp_path).ensure(name_of(1))


LORA: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**LORA, "target_modules": ["embed_tokens"]}, "adapts embeddings"),
        ({**LORA, "r": 32}, "--max-lora-rank"),
        ({**LORA, "r": "8"}, "cannot be read as an artifact: TypeError"),
        ({**LORA, "target_modules": [{}]}, "cannot be read as an artifact: TypeError"),
        ({}, "cannot be read as an artifact: KeyError"),
        ([], "cannot be read as an artifact: TypeError"),
    ],
)
def test_adapters_that_are_none_are_refused(tmp_path: Path, config: Any, words: str) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    (tmp_path / "adapter_config.json").write_text(json.dumps(LORA))
    base = LoadedBase("tiny", "sha256:1", BaseIdentity("a", "b", "c"), 512)
    check_artifact(tmp_path, base, 16)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(NotServed, match=words):
        check_artifact(tmp_path, base, 16)
