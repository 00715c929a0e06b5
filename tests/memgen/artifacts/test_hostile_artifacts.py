"""Artifacts that somebody made up: their manifest fits, and what they hold is refused in words before it answers."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from memgen.artifacts.artifact import load_artifact
from memgen.errors import ArtifactCorrupt, ArtifactError, ArtifactMismatch
from memgen.memory.host import AdapterHost

LORA = "weaver/adapter_model.safetensors"


@pytest.fixture
def folder(artifacts: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifacts["yes"], tmp_path / "artifact"))


def _seal(folder: Path) -> None:
    """Make the manifest fit."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    hashes = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (folder / "manifest.json").write_text(json.dumps(hashes))


@pytest.mark.parametrize("name", ["memory.safetensors", LORA])
@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda tensor: tensor * float("nan"), ArtifactCorrupt, "has values that are not finite"),
        (lambda tensor: torch.full_like(tensor, float("inf")), ArtifactCorrupt, "has values that are not finite"),
        (lambda tensor: tensor.double() + 1e300, ArtifactMismatch, "is torch.float64; expected one of"),
        (lambda tensor: tensor.to(torch.int64), ArtifactMismatch, "is torch.int64; expected one of"),
        (lambda tensor: tensor.to(torch.bool), ArtifactMismatch, "is torch.bool; expected one of"),
        (lambda tensor: tensor.to(torch.complex64), ArtifactMismatch, "is torch.complex64; expected one of"),
    ],
    ids=["nan", "inf", "float64", "int64", "bool", "complex64"],
)
def test_weights_that_are_no_numbers_are_refused(
    host: AdapterHost,
    folder: Path,
    name: str,
    change: Callable[[Tensor], Tensor],
    error: type[ArtifactError],
    says: str,
) -> None:
    save_file({key: change(tensor) for key, tensor in load_file(folder / name).items()}, folder / name)
    _seal(folder)
    with pytest.raises(error, match=says):
        load_artifact(host, "a", folder)
    assert "a" not in host.memories


def _without_config(described: dict[str, Any]) -> None:
    del described["config"]


def _config(**change: object) -> Callable[[dict[str, Any]], None]:
    return lambda described: described["config"].update(change)


def _field(**change: object) -> Callable[[dict[str, Any]], None]:
    return lambda described: described.update(change)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_without_config, "has 'None' for an object"),
        (_field(config=[1]), r"has '\[1\]' for an object"),
        (_field(base_identity="mine"), "has 'mine' for an object"),
        (_config(alpha=10**400), "alpha is an integer of 1329 bits; expected a number"),
        (_config(alpha=10**30), "alpha is 10+; expected 1 to"),
        (_config(latents=10**9), "latents is 10+; expected 1 to"),
        (_config(target_modules=[["q_proj"]]), r"target_modules\[0\] is \['q_proj'\]; expected a value of type str"),
        (_config(target_modules=["q_proj"] * 100_000), "target_modules has 100000 texts; expected at most"),
        (_config(delimiters=["," * 100_000]), "delimiters has 1 texts; expected at most"),
    ],
)
def test_a_description_that_was_made_up_is_refused(
    host: AdapterHost, folder: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    described = json.loads((folder / "memory.json").read_text())
    change(described)
    (folder / "memory.json").write_text(json.dumps(described))
    _seal(folder)
    with pytest.raises(ArtifactError, match=says):
        load_artifact(host, "a", folder)
    assert "a" not in host.memories


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"[1]", b"[" * 100_000], ids=["cut", "bytes", "list", "deep"])
@pytest.mark.parametrize("name", ["memory.json", "manifest.json"])
def test_a_file_that_is_no_object_is_named(host: AdapterHost, folder: Path, name: str, text: bytes) -> None:
    (folder / name).write_bytes(text)
    if name != "manifest.json":
        _seal(folder)
    with pytest.raises(ArtifactCorrupt, match=f"{name}: (not JSON|is a list)"):
        load_artifact(host, "a", folder)
