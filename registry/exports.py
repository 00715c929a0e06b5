"""One version as one archive, which another installation can verify and import.

A tar of `version.json`, which says what the version is and where it comes from, and `artifact/`, the version's files
with their `manifest.json`. Equal versions give equal bytes.
"""

import hashlib
import io
import json
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy.orm import Session

from registry.artifacts import ObjectStore
from registry.errors import Invalid, InvalidArchive
from registry.json_text import show
from registry.models import Version
from registry.versions import gate_of, learned_tasks, lineage, serving_versions, verdict

FORMAT = 1
DESCRIPTION = "version.json"
_FOLDER = "artifact"
_MANIFEST = "manifest.json"
_NEEDED = ("format", "adapter", "number", "verdict", "base_model", "base_revision", "code_version", "artifact_hash")


@dataclass(frozen=True)
class Archive:
    """An archive that was read and found whole."""

    description: dict[str, Any]
    folder: Path
    """The artifact's files."""
    report: dict[str, Any]
    """The artifact's training report."""


def describe_version(session: Session, version: Version) -> dict[str, Any]:
    """`version.json`: the version, its lineage down to the first ancestor, and the tasks that it learned.

    Raises:
        Invalid: it serves together with its ancestors' artifacts, which one archive does not carry.
    """
    if len(serving_versions(version)) > 1:
        raise Invalid(
            f"{version.adapter.name}@{version.number} is of strategy isolated and serves with the memories of its "
            "ancestors; export those of its lineage that hold one task each"
        )
    gate = gate_of(session, version)
    return {
        "format": FORMAT,
        "adapter": version.adapter.name,
        "number": version.number,
        "verdict": verdict(gate),
        "reasons": gate.reasons if gate else [],
        "strategy": version.adapter.strategy,
        "memory": version.adapter.memory,
        "base_model": version.base_model,
        "base_revision": version.base_revision,
        "code_version": version.code_version,
        "artifact_hash": version.artifact_hash,
        "created_at": version.created_at.isoformat(),
        "lineage": [_ancestor(each) for each in lineage(version)],
        "tasks": [
            {
                "name": task.name,
                "grader": task.grader,
                "holdout_share": task.holdout_share,
                "description": task.description,
            }
            for task in learned_tasks(version)
        ],
    }


def write_archive(store: ObjectStore, description: dict[str, Any], artifact_key: str, path: Path) -> None:
    """Fetch the artifact, check every file, and write the tar. Raises ObjectNotFound, InvalidArchive."""
    with tempfile.TemporaryDirectory(prefix="memgen-export-") as name:
        folder = Path(name)
        store.get_folder(artifact_key, folder)
        check_artifact(folder, description["artifact_hash"])
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, DESCRIPTION, json.dumps(description, indent=1, sort_keys=True).encode())
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                _add(tar, f"{_FOLDER}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def read_archive(path: Path, folder: Path, *, max_bytes: int) -> Archive:
    """Unpack into an empty `folder` and check every byte against the manifest.

    Raises:
        InvalidArchive: no such archive, a strange member, too large, or bytes that are not what the manifest says.
    """
    description: dict[str, Any] | None = None
    left = max_bytes
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                left -= member.size
                if left < 0:
                    raise InvalidArchive(f"the archive unpacks to more than {max_bytes} bytes; is it one of ours?")
                target = _target(member)
                file = tar.extractfile(member)
                data = file.read() if file is not None else b""
                if target is None:
                    description = _read_description(data)
                    continue
                where = folder / target
                where.parent.mkdir(parents=True, exist_ok=True)
                where.write_bytes(data)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InvalidArchive(f"not an archive of a version: {error}; expected the tar of an export") from error
    if description is None:
        raise InvalidArchive(f"the archive has no {DESCRIPTION}; expected the tar of an export")
    check_artifact(folder, description["artifact_hash"])
    trained_for = _json_object(folder / "memory.json").get("base_revision")
    if trained_for != description["base_revision"]:
        raise InvalidArchive(
            f"memory.json was made for base revision {trained_for}, {DESCRIPTION} says {description['base_revision']}"
        )
    return Archive(description, folder, _json_object(folder / "report.json"))


def check_artifact(folder: Path, artifact_hash: str) -> None:
    """Raises InvalidArchive unless the folder's manifest has the hash, and its files are those of the manifest."""
    manifest_path = folder / _MANIFEST
    if not manifest_path.is_file():
        raise InvalidArchive(f"the artifact has no {_MANIFEST}")
    found = _sha256(manifest_path)
    if found != artifact_hash:
        raise InvalidArchive(f"{_MANIFEST} has sha256 {found}; the version's is {artifact_hash}")
    manifest = _json_object(manifest_path)
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {_MANIFEST}
    if present != manifest.keys():
        missing, extra = sorted(manifest.keys() - present)[:3], sorted(present - manifest.keys())[:3]
        raise InvalidArchive(f"the artifact's files differ from its manifest: missing {missing}, unexpected {extra}")
    for name, expected in manifest.items():
        if (actual := _sha256(folder / name)) != expected:
            raise InvalidArchive(f"{name} has sha256 {actual}; the manifest says {expected}")


def _ancestor(version: Version) -> dict[str, Any]:
    return {
        "number": version.number,
        "task": version.dataset.task.name,
        "dataset_hash": version.dataset.content_hash,
        "dataset": version.dataset.manifest,
        "artifact_hash": version.artifact_hash,
        "code_version": version.code_version,
    }


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # Nothing of when or by whom: TarInfo's own defaults are zero.
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _target(member: tarfile.TarInfo) -> str | None:
    """The file's place in the artifact's folder; None for the description. Raises InvalidArchive."""
    name = PurePosixPath(member.name)
    if member.isreg() and member.name == DESCRIPTION:
        return None
    inside = len(name.parts) > 1 and name.parts[0] == _FOLDER and ".." not in name.parts
    if not member.isreg() or not inside or "\\" in member.name or "\0" in member.name:
        raise InvalidArchive(f"the archive has {show(member.name)}; expected files {DESCRIPTION} and {_FOLDER}/...")
    return PurePosixPath(*name.parts[1:]).as_posix()


def _json_object(path: Path) -> dict[str, Any]:
    """Raises InvalidArchive."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidArchive(f"{path.name} of the artifact is missing or no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidArchive(f"{path.name} of the artifact is {show(found)}; expected an object")
    return found


def _read_description(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise InvalidArchive(f"{DESCRIPTION} is not JSON: {error}") from error
    missing = [field for field in (*_NEEDED, "lineage", "tasks", "memory") if field not in found]
    if missing or not found["lineage"] or not found["tasks"]:
        raise InvalidArchive(f"{DESCRIPTION} lacks {missing or 'a lineage or tasks'}; expected the tar of an export")
    if found["format"] != FORMAT:
        raise InvalidArchive(f"the archive has format {show(found['format'])}; this service reads {FORMAT}")
    return dict(found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
