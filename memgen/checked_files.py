"""Folders that are checked in every byte and never pickled: tensors as safetensors, everything else as JSON, the
sha256 of every file in `manifest.json`."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from memgen.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing, in_one_line

_MANIFEST = "manifest.json"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""The dtypes that weights may have: float32 holds them exactly."""


def read_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file. Raises ArtifactMissing, or ArtifactCorrupt if it holds something else."""
    try:
        found = json.loads(existing(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactCorrupt(f"{path}: not JSON: {in_one_line(error)}") from error
    if not isinstance(found, dict):
        raise ArtifactCorrupt(f"{path}: is a {type(found).__name__}; expected an object")
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises ArtifactMissing or ArtifactCorrupt."""
    try:
        return load(existing(path).read_bytes())
    except SafetensorError as error:
        raise ArtifactCorrupt(f"{path}: not a safetensors file: {error}") from error


def check_tensors(path: Path, got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Compare weights that were read with those that they are to replace.

    Raises:
        ArtifactMismatch: other names, shapes, or a dtype that is none of weights.
        ArtifactCorrupt: a value is not finite, so that every answer would be noise.
    """
    if got.keys() != expected.keys():
        missing, extra = sorted(expected.keys() - got.keys())[:3], sorted(got.keys() - expected.keys())[:3]
        raise ArtifactMismatch(f"{path}: tensors missing {missing}, unexpected {extra}")
    for key, tensor in got.items():
        if tensor.shape != expected[key].shape:
            raise ArtifactMismatch(
                f"{path}: {key} is {tuple(tensor.shape)}, the config needs {tuple(expected[key].shape)}"
            )
        if tensor.dtype not in _DTYPES:
            raise ArtifactMismatch(f"{path}: {key} is {tensor.dtype}; expected one of {_DTYPES}")
        if not tensor.isfinite().all():
            raise ArtifactCorrupt(f"{path}: {key} has values that are not finite")


def write_manifest(folder: Path) -> str:
    """Write the sha256 of every file in `folder` into its manifest.json; returns the manifest's own."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / _MANIFEST)
    write_json(folder / _MANIFEST, {p.relative_to(folder).as_posix(): _sha256(p) for p in files})
    return _sha256(folder / _MANIFEST)


def check_files(
    folder: Path,
    manifest_sha256: str | None = None,
    *,
    only: Collection[str] | None = None,
    may_lack: Collection[str] = (),
) -> None:
    """Compare every file, or only those of some names, with the manifest. Raises ArtifactMissing or ArtifactCorrupt.

    Args:
        may_lack: names that the manifest lists and that need not be there.
    """
    manifest_path = folder / _MANIFEST
    if not manifest_path.is_file():
        raise ArtifactMissing(f"{folder} has no manifest.json; it is not a memory's folder")
    found = _sha256(manifest_path)
    if manifest_sha256 is not None and found != manifest_sha256:
        raise ArtifactCorrupt(f"{manifest_path}: sha256 is {found}, the registry recorded {manifest_sha256}")
    for name, expected in read_object(manifest_path).items():
        path = folder / name
        is_read = name in only if only is not None else name not in may_lack or path.exists()
        if not is_read:
            continue
        if not path.is_file():
            raise ArtifactMissing(f"{path} is missing; manifest.json lists it")
        if (actual := _sha256(path)) != expected:
            raise ArtifactCorrupt(f"{path}: sha256 is {actual}, manifest.json says {expected}")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, of whatever device the tensors are on."""
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    save_file(plain, path, metadata={"format": "pt"})


def write_json(path: Path, value: Any) -> None:
    """Write a value, its keys in order, so that equal values give equal bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def existing(path: Path) -> Path:
    """The path. Raises ArtifactMissing unless it is a file."""
    if not path.is_file():
        raise ArtifactMissing(f"{path} is missing")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
