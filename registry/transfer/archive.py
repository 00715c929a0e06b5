"""Portable archives: one version as one file, which another installation can verify and import.

An archive is a tar of `version.json`, which says what the version is and where it comes from, and `artifact/`, the
version's files with their `manifest.json`. A version of strategy isolated answers with the memories of other tasks too:
each is a *part*, a folder `parts/<hash>/` like `artifact/`, where `<hash>` is the one that `artifact/isolated.json`
names. So the one hash of the version covers every byte of the parts. Equal versions give equal bytes.
"""

import hashlib
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.binding import changed_parts
from registry.errors import InvalidArchive
from registry.gates.verdict import gate_of, verdict
from registry.json_text import show
from registry.models import Version, VersionImport
from registry.object_store import ObjectStore
from registry.transfer.description import (
    DESCRIPTION,
    FORMAT,
    check_json_size,
    read_description,
    read_object,
    read_report,
)
from registry.transfer.tar_members import TarMember, read_members
from registry.versions.ancestry import ancestors_and_self, learned_tasks
from registry.versions.artifacts import artifact_beside

_FOLDER = "artifact"
_PARTS = "parts"
FOLDERS = (_FOLDER, _PARTS)
"""What an archive has beside its description."""
_MANIFEST = "manifest.json"
_ISOLATED = "isolated.json"
_PIECE_BYTES = 1 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Archive:
    """An archive that was read and found whole."""

    description: dict[str, Any]
    folder: Path
    """The artifact's files."""
    parts: dict[str, Path]
    """Folder of each part's files, by hash."""
    report: dict[str, Any]
    """The artifact's training report."""


def describe_version(session: Session, version: Version) -> dict[str, Any]:
    """`version.json` without the parts: the version, its lineage down to the first ancestor, and its tasks."""
    gate = gate_of(session, version)
    return {
        "format": FORMAT,
        "adapter": version.adapter.name,
        "number": version.number,
        "verdict": verdict(gate),
        "reasons": gate.reasons if gate else [],
        "strategy": version.adapter.strategy,
        "memory": version.adapter.memory,
        "form": version.form,
        "base_model": version.base_model,
        "base_revision": version.base_revision,
        "base_identity": version.adapter.base_identity,
        "code_version": version.code_version,
        "artifact_hash": version.artifact_hash,
        "created_at": version.created_at.isoformat(),
        "lineage": _lineage(session, version),
        "tasks": [
            {
                "name": task.name,
                "grader": task.grader,
                "holdout_share": task.holdout_share,
                "shared_turns": task.shared_turns,
                "description": task.description,
            }
            for task in learned_tasks(session, version)
        ],
    }


def write_archive(store: ObjectStore, description: dict[str, Any], artifact_key: str, path: Path) -> None:
    """Fetch the artifact and its parts, check every file, and write the tar. Raises ObjectNotFound, InvalidArchive."""
    with tempfile.TemporaryDirectory(prefix="export-", dir=path.parent) as name:
        folder = Path(name)
        store.get_folder(artifact_key, folder / _FOLDER)
        check_artifact(folder, _FOLDER, description["artifact_hash"])
        parts = _named_parts(folder)
        for part in sorted(set(parts.values())):
            store.get_folder(artifact_beside(artifact_key, part), folder / _PARTS / part)
            check_artifact(folder, f"{_PARTS}/{part}", part)
        text = json.dumps({**description, "parts": parts}, indent=1, sort_keys=True).encode()
        check_json_size(len(text), DESCRIPTION)
        (folder / DESCRIPTION).write_bytes(text)
        pack_archive(folder, path)


def pack_archive(folder: Path, path: Path) -> None:
    """Write the tar of an unpacked archive, `version.json` first; what else lies in the folder is left out.

    It checks nothing: `read_archive` does, of the tar.
    """
    inside = [file for name in FOLDERS for file in sorted((folder / name).rglob("*")) if file.is_file()]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for each in (folder / DESCRIPTION, *inside):
            with each.open("rb") as file:
                _add(tar, each.relative_to(folder).as_posix(), file, each.stat().st_size)


def read_archive(path: Path, folder: Path, *, max_bytes: int) -> Archive:
    """Unpack into an empty `folder` and check every byte against the manifests.

    Raises:
        InvalidArchive: no such archive, a strange member, too large, a part missing or one too many, or bytes that
            are not what the manifests say.
    """
    description: dict[str, Any] | None = None
    with path.open("rb") as file:
        for member in _members(file, path, max_bytes):
            if member.name == DESCRIPTION:
                description = read_description(_read(file, member))
            else:
                _unpack(file, member, folder / member.name)
    if description is None:
        raise InvalidArchive(f"the archive has no {DESCRIPTION}; expected the tar of an export")
    check_artifact(folder, _FOLDER, description["artifact_hash"])
    artifact = folder / _FOLDER
    _check_base(_json_object(artifact / "memory.json"), description)
    parts = _check_parts(folder, description)
    return Archive(description, artifact, parts, read_report(_bytes(artifact / "report.json"), "report.json"))


def _check_base(memory: dict[str, Any], description: dict[str, Any]) -> None:
    """Raises InvalidArchive if the version is of another form, or for another base, than the description says."""
    if (made_for := memory.get("base_revision")) != description["base_revision"]:
        raise InvalidArchive(
            f"memory.json was made for base revision {made_for}, {DESCRIPTION} says {description['base_revision']}"
        )
    config, expected = memory.get("config"), description["form"] or description["memory"].get("form", "cache")
    if isinstance(config, dict) and (form := config.get("form", "cache")) != expected:
        raise InvalidArchive(f"memory.json is of form {show(form)}, {DESCRIPTION} says {show(expected)}")
    made_with = memory.get("base_identity") or {}
    if not isinstance(made_with, dict) or (changed := changed_parts(made_with, description["base_identity"])):
        parts = ", ".join(changed) if isinstance(made_with, dict) else show(made_with)
        raise InvalidArchive(f"memory.json and {DESCRIPTION} differ in their base_identity: {parts}")


def member_path(name: str) -> str:
    """Path of a member in the folder to unpack into, or the description's name.

    Raises:
        InvalidArchive: it is not of the layout, or would lie elsewhere.
    """
    path = PurePosixPath(name)
    depth = {_FOLDER: 1, _PARTS: 2}.get(path.parts[0], 0) if path.parts else 0
    inside = 0 < depth < len(path.parts) and ".." not in path.parts
    if name != DESCRIPTION and (not inside or "\\" in name or not name.isprintable()):
        raise InvalidArchive(
            f"the archive has {show(name)}; expected files {DESCRIPTION}, {_FOLDER}/... and {_PARTS}/<hash>/..."
        )
    return path.as_posix()


def check_artifact(folder: Path, name: str, artifact_hash: str) -> None:
    """Raises InvalidArchive unless the manifest of the artifact at `name` in `folder` has the hash, and its files are
    those of the manifest."""
    artifact = folder / name
    manifest_path = artifact / _MANIFEST
    if not manifest_path.is_file():
        raise InvalidArchive(f"{name} has no {_MANIFEST}; expected one with sha256 {artifact_hash}")
    found = _sha256(manifest_path)
    if found != artifact_hash:
        raise InvalidArchive(f"{name}/{_MANIFEST} has sha256 {found}; expected {artifact_hash}")
    manifest = _json_object(manifest_path)
    for file, expected in manifest.items():
        if not isinstance(expected, str) or not _SHA256.fullmatch(expected):
            raise InvalidArchive(f"{name}/{_MANIFEST}: {file[:200]} has {show(expected)}; expected a sha256")
    present = {p.relative_to(artifact).as_posix() for p in artifact.rglob("*") if p.is_file()} - {_MANIFEST}
    if present != manifest.keys():
        missing, extra = sorted(manifest.keys() - present)[:3], sorted(present - manifest.keys())[:3]
        raise InvalidArchive(f"the files of {name} differ from its manifest: missing {missing}, unexpected {extra}")
    for file, expected in manifest.items():
        if (actual := _sha256(artifact / file)) != expected:
            raise InvalidArchive(f"{name}/{file} has sha256 {actual}; the manifest says {expected}")


def _named_parts(folder: Path) -> dict[str, str]:
    """Hash of the part that answers for each task, in order; empty if the artifact answers for all tasks itself."""
    path = folder / _FOLDER / _ISOLATED
    if not path.is_file():
        return {}
    others = _json_object(path).get("others")
    # They become names of folders.
    if not isinstance(others, dict) or not all(isinstance(h, str) and _SHA256.fullmatch(h) for h in others.values()):
        raise InvalidArchive(f"`others` of {_FOLDER}/{_ISOLATED} is {show(others)}; expected a sha256 by task")
    return dict(sorted(others.items()))


def _check_parts(folder: Path, description: dict[str, Any]) -> dict[str, Path]:
    """Folder of each part that the artifact names, by hash. Checks that all are there and whole, and no others."""
    named = _named_parts(folder)
    if (described := description.get("parts", {})) != named:
        raise InvalidArchive(f"{DESCRIPTION} has parts {show(described)}; {_FOLDER}/{_ISOLATED} names {show(named)}")
    present = {path.name: path for path in (folder / _PARTS).glob("*")}
    for task, part in named.items():
        if part not in present:
            raise InvalidArchive(f"the archive has no {_PARTS}/{part}; expected the memory of task {show(task)} there")
        check_artifact(folder, f"{_PARTS}/{part}", part)
    if extra := sorted(present.keys() - set(named.values()))[:3]:
        raise InvalidArchive(f"the archive has parts {extra}; {_FOLDER}/{_ISOLATED} does not name them")
    return {part: present[part] for part in named.values()}


def _lineage(session: Session, version: Version) -> list[dict[str, Any]]:
    """The ancestors from the first on; those that an imported version had at its origin come before it."""
    versions = ancestors_and_self(session, version)
    imported = select(VersionImport).where(VersionImport.version_id.in_([each.id for each in versions]))
    before = {row.version_id: row.origin["lineage"][:-1] for row in session.scalars(imported)}
    return [ancestor for each in versions for ancestor in (*before.get(each.id, ()), _ancestor(each))]


def _ancestor(version: Version) -> dict[str, Any]:
    return {
        "number": version.number,
        "task": version.dataset.task.name,
        "dataset_hash": version.dataset.content_hash,
        "dataset": version.dataset.manifest,
        "artifact_hash": version.artifact_hash,
        "code_version": version.code_version,
    }


def _add(tar: tarfile.TarFile, name: str, data: BinaryIO, size: int) -> None:
    # Nothing of when or by whom: TarInfo's own defaults are zero.
    member = tarfile.TarInfo(name)
    member.size = size
    tar.addfile(member, data)


def _members(file: BinaryIO, path: Path, max_bytes: int) -> Iterator[TarMember]:
    """The members of the archive, each checked before its bytes are read. Raises InvalidArchive."""
    left, names, folders = max_bytes, set[str](), set[str]()
    for member in read_members(file, path):
        left -= member.size
        if left < 0:
            raise InvalidArchive(f"the archive unpacks to more than {max_bytes} bytes; is it one of ours?")
        target = member_path(member.name)
        above = {str(folder) for folder in PurePosixPath(target).parents}
        if target in names or target in folders or not above.isdisjoint(names):
            raise InvalidArchive(f"the archive has {show(target)} twice; expected each file once")
        names.add(target)
        folders |= above
        yield replace(member, name=target)


def _read(file: BinaryIO, member: TarMember) -> bytes:
    check_json_size(member.size, member.name)
    file.seek(member.offset)
    return file.read(member.size)


def _unpack(file: BinaryIO, member: TarMember, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    file.seek(member.offset)
    with target.open("wb") as unpacked:
        left = member.size
        while left and (piece := file.read(min(left, _PIECE_BYTES))):
            unpacked.write(piece)
            left -= len(piece)


def _json_object(path: Path) -> dict[str, Any]:
    """Raises InvalidArchive."""
    return read_object(_bytes(path), path.name)


def _bytes(path: Path) -> bytes:
    """Raises InvalidArchive."""
    try:
        check_json_size(path.stat().st_size, path.name)
        return path.read_bytes()
    except OSError as error:
        raise InvalidArchive(f"the artifact has no {path.name}; expected the files of an export") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
